"""The bytes of planned tensors: pages of files on this machine, or memory filled from wherever the files are."""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import torch

from wmtp.checkpoint.headers import parse_header
from wmtp.checkpoint.tensors import DTYPE_BYTES, TensorInfo
from wmtp.errors import IntegrityError, StorageError
from wmtp.load_plan.parameters import TORCH_DTYPES
from wmtp.load_plan.plan import Assignment
from wmtp.storage.local import reading
from wmtp.storage.order import in_order
from wmtp.storage.store import Piece, Store
from wmtp.untrusted import show

# More than this many at once wait for each other in the kernel.
_NUM_THREADS = min(4, os.cpu_count() or 1)
_RUN_BYTES = 64 << 20  # of memory that is let go of once its tensors are cast or copied to a device
_ALIGNMENT = (
    64  # of torch's own allocations; elsewhere a processor may compute with other instructions, and round apart
)

Planned = tuple[Assignment, torch.Tensor]


def planned_values(
    store: Store, assignments: Sequence[Assignment], *, device: str | torch.device, mmap: bool
) -> Iterator[Planned]:
    """Yield every assignment with the value it gives, in no particular order.

    Args:
        store: The checkpoint's files.
        assignments: Those of a plan.
        device: Where values end up.
        mmap: Use the files' pages as the values' memory where the files have paths on this machine (private: writing
            to a value never reaches the file). False: read them into private memory.

    Raises:
        IntegrityError: If private memory has another digest than the one that a file must have.
    """
    if mmap and store.has_paths:
        files = store.local_paths({assignment.tensor.file for assignment in assignments})
        return _mapped(assignments, files, device)
    return _filled(store, assignments, device)


def _mapped(
    assignments: Sequence[Assignment], files: Mapping[str, Path], device: str | torch.device
) -> Iterator[Planned]:
    on_cpu = torch.device(device).type == "cpu"
    whole = {name: _map_file(path) for name, path in files.items()} if on_cpu else {}

    def value_of(assignment: Assignment) -> Planned:
        tensor = assignment.tensor
        # Where a value is copied, a mapping of its own: its pages leave this process's memory once they are copied.
        pages = whole[tensor.file] if _is_used_in_place(assignment, device) else _map_file(files[tensor.file])
        return assignment, _value(assignment, pages[tensor.start : tensor.end], str(files[tensor.file]), device)

    # Fresh memory costs time page by page, which every core can spend at once; using a page in place costs less than
    # handing a task to a thread.
    if not on_cpu or all(_is_used_in_place(assignment, device) for assignment in assignments):
        yield from map(value_of, assignments)
        return
    with ThreadPoolExecutor(_NUM_THREADS) as pool:
        yield from in_order(pool, value_of, assignments, ahead=2 * _NUM_THREADS)


def _filled(store: Store, assignments: Sequence[Assignment], device: str | torch.device) -> Iterator[Planned]:
    def values_of(filled: tuple[_Run, torch.Tensor]) -> list[Planned]:
        run, memory = filled
        where = store.where(run.file)
        return [
            (used, _value(used, memory[used.tensor.start - run.start : used.tensor.end - run.start], where, device))
            for used in run.used
        ]

    runs = [run for file in _by_file(assignments) for run in _runs(store, file, device)]
    with ThreadPoolExecutor(_NUM_THREADS) as pool:
        for values in in_order(pool, values_of, _filled_runs(store, runs), ahead=_NUM_THREADS):
            yield from values


@dataclass(frozen=True)
class _Run:
    """Bytes of a file that are read in one go.

    Attributes:
        file: The file.
        start: First byte.
        end: One past the last.
        used: What the tensors among them are used for, in the order of the file.
    """

    file: str
    start: int
    end: int
    used: tuple[Assignment, ...] = ()


def _by_file(assignments: Sequence[Assignment]) -> Iterator[list[Assignment]]:
    ordered = sorted(assignments, key=lambda used: (used.tensor.file, used.tensor.start))
    for _, used in groupby(ordered, key=lambda used: used.tensor.file):
        yield list(used)


def _runs(store: Store, planned: Sequence[Assignment], device: str | torch.device) -> list[_Run]:
    """Divide a file into runs: the tensors that are used, and everything else too where a digest must be held."""
    groups: list[list[Assignment]] = []
    for used in planned:
        if groups and _continues(groups[-1], used, device):
            groups[-1].append(used)
        else:
            groups.append([used])
    file = planned[0].tensor.file
    runs = [_Run(file, group[0].tensor.start, group[-1].tensor.end, tuple(group)) for group in groups]
    return list(_without_holes(runs, store.stat(file).size_bytes)) if store.expected(file) else runs


def _continues(group: Sequence[Assignment], used: Assignment, device: str | torch.device) -> bool:
    first, last = group[0], group[-1]
    offset, in_place = used.tensor.start - first.tensor.start, _is_used_in_place(used, device)
    if last.tensor.end != used.tensor.start or offset > _RUN_BYTES:
        return False
    # What is cast lets go of its memory, what is used in place keeps it, and begins where torch would have put it.
    return _is_used_in_place(first, device) == in_place and not (in_place and offset % _ALIGNMENT)


def _without_holes(runs: Sequence[_Run], size: int) -> Iterator[_Run]:
    reached = 0
    for run in (*runs, _Run(runs[0].file, size, size)):
        if reached < run.start:
            yield _Run(run.file, reached, run.start)
        yield run
        reached = run.end


def _filled_runs(store: Store, runs: Sequence[_Run]) -> Iterator[tuple[_Run, torch.Tensor]]:
    """Yield every run with its bytes, once they are read; a file's digest is checked when its last one is."""
    waiting: deque[tuple[_Run, torch.Tensor]] = deque()

    def pieces() -> Iterator[Piece]:
        for run in runs:
            memory = _empty(store.where(run.file), run.end - run.start)
            waiting.append((run, memory))
            yield Piece(run.file, run.start, memory.numpy().data)

    digest, first = hashlib.sha256(), b""
    for piece in store.fill(pieces()):
        run, memory = waiting.popleft()
        if store.expected(run.file):
            if run.start == 0:
                digest, first = hashlib.sha256(), bytes(piece.buffer)
            digest.update(piece.buffer)
            if run.end == store.stat(run.file).size_bytes:
                store.confirm(run.file, f"sha256:{digest.hexdigest()}")
                _check_header(store, run.file, first, [used.tensor for other in runs for used in other.used])
        yield run, memory


def _check_header(store: Store, file: str, first: bytes, planned: Sequence[TensorInfo]) -> None:
    """Raise IntegrityError unless the header that belongs to the verified bytes is the one the plan was made from."""
    where, header = store.where(file), first[8 : 8 + int.from_bytes(first[:8], "little")]
    found = parse_header(header, where=where, file=file, size=store.stat(file).size_bytes)
    if not {tensor for tensor in planned if tensor.file == file} <= set(found):
        raise IntegrityError(f"{where}: its header changed while it was being loaded", hint="load it again")


def _value(used: Assignment, raw: torch.Tensor, where: str, device: str | torch.device) -> torch.Tensor:
    tensor = used.tensor
    if len(raw) < tensor.num_bytes:
        raise StorageError(
            f"{where}: ends within {show(tensor.name)}, which its header puts at bytes {tensor.start:,} to"
            f" {tensor.end:,}",
            hint="the file changed while it was being loaded: load it again once nothing writes to it",
        )
    try:
        if raw.data_ptr() % DTYPE_BYTES[tensor.dtype]:
            raw = raw.clone()  # a header of odd length; torch needs aligned data
        stored = raw.view(TORCH_DTYPES[tensor.dtype]).view(tensor.shape)
        return stored.to(device=device, dtype=TORCH_DTYPES[used.dtype])
    except (RuntimeError, MemoryError) as error:
        raise _no_memory(where, tensor.num_bytes, error) from error


def _map_file(path: Path) -> torch.Tensor:
    with reading(path):
        size = path.stat().st_size
    try:
        return torch.from_file(str(path), shared=False, size=size, dtype=torch.uint8)
    except RuntimeError as error:
        raise _no_memory(str(path), size, error) from error


def _empty(where: str, num_bytes: int) -> torch.Tensor:
    try:
        return torch.empty(num_bytes, dtype=torch.uint8, device="cpu")
    except RuntimeError as error:
        raise _no_memory(where, num_bytes, error) from error


def _no_memory(where: str, num_bytes: int, error: Exception) -> StorageError:
    return StorageError(
        f"{where}: {num_bytes:,} bytes of it cannot be held in memory: {show(str(error))}",
        hint="load it on a machine or device with more memory, or in a smaller dtype",
    )


def _is_used_in_place(assignment: Assignment, device: str | torch.device) -> bool:
    return torch.device(device).type == "cpu" and assignment.dtype == assignment.tensor.dtype
