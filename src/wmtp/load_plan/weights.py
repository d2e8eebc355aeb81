"""The values of planned parameters: pages of files on this machine, or memory filled from wherever the files are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from wmtp.checkpoint.tensors import DTYPE_BYTES, TensorInfo
from wmtp.errors import StorageError
from wmtp.load_plan.conversion.values import Assembly
from wmtp.load_plan.parameters import TORCH_DTYPES
from wmtp.load_plan.plan import Assignment
from wmtp.load_plan.reading import NUM_THREADS, Read, Run, filled_runs, no_memory
from wmtp.load_plan.share import Share
from wmtp.storage.local import reading
from wmtp.storage.order import in_order
from wmtp.storage.store import Store
from wmtp.untrusted import show

Planned = tuple[Assignment, Tensor]


def planned_values(
    store: Store,
    assignments: Sequence[Assignment],
    *,
    device: str | torch.device,
    mmap: bool,
    share: Share | None = None,
) -> Iterator[Planned]:
    """Yield every assignment with the value it gives, in no particular order.

    Args:
        store: The checkpoint's files.
        assignments: Those of a plan.
        device: Where values end up.
        mmap: Use the files' pages as the values' memory where the files have paths on this machine (private: writing
            to a value never reaches the file), and where a value is one stored tensor. False: read them into private
            memory.
        share: Whose rows of parameters that are made of several tensors are read, and who takes down what was read.
            None: everybody's.

    Raises:
        IntegrityError: If private memory has another digest than the one that a file must have.
    """
    if not (mmap and store.has_paths):
        yield from _filled(store, assignments, device, share=share)
        return
    files = store.local_paths({tensor.file for assignment in assignments for tensor in assignment.tensors})
    stored = [each for each in assignments if isinstance(each.source, TensorInfo)]
    if share is not None:
        _take_down(share, [each for each in stored if not _is_used_in_place(each, device)])
    yield from _mapped(stored, files, device)
    made = [each for each in assignments if not isinstance(each.source, TensorInfo)]
    yield from _filled(store, made, device, files, share=share)


def _mapped(
    assignments: Sequence[Assignment], files: Mapping[str, Path], device: str | torch.device
) -> Iterator[Planned]:
    on_cpu = torch.device(device).type == "cpu"
    whole = {name: _map_file(path) for name, path in files.items()} if on_cpu else {}

    def value_of(assignment: Assignment) -> Planned:
        (tensor,) = assignment.tensors
        # Where a value is copied, a mapping of its own: its pages leave this process's memory once they are copied.
        pages = whole[tensor.file] if _is_used_in_place(assignment, device) else _map_file(files[tensor.file])
        raw = pages[tensor.start : tensor.end]
        return assignment, _value(tensor, raw, str(files[tensor.file]), device=device, dtype=assignment.dtype)

    # Fresh memory costs time page by page, which every core can spend at once; using a page in place costs less than
    # handing a task to a thread.
    if not on_cpu or all(_is_used_in_place(assignment, device) for assignment in assignments):
        yield from map(value_of, assignments)
        return
    with ThreadPoolExecutor(NUM_THREADS) as pool:
        yield from in_order(pool, value_of, assignments, ahead=2 * NUM_THREADS)


def _filled(
    store: Store,
    assignments: Sequence[Assignment],
    device: str | torch.device,
    files: Mapping[str, Path] | None = None,
    *,
    share: Share | None = None,
) -> Iterator[Planned]:
    if not assignments:
        return
    uses = _Uses(store, assignments, device, share)
    if share is not None:
        share.num_bytes += sum(read.tensor.num_bytes for read in uses.reads())
        share.in_memory.update(name for assignment in assignments for name in assignment.names)
    yield from uses.blanks
    with ThreadPoolExecutor(NUM_THREADS) as pool:
        for values in in_order(pool, uses.values_of, filled_runs(store, uses.reads(), files), ahead=NUM_THREADS):
            yield from values


class _Uses:
    """What every stored tensor is read for: to be a parameter as it is, or a part of some.

    Attributes:
        blanks: Parameters of which nothing is to be read.
    """

    def __init__(
        self, store: Store, assignments: Sequence[Assignment], device: str | torch.device, share: Share | None
    ) -> None:
        self._store, self._device = store, device
        self._whole = {a.source: a for a in assignments if isinstance(a.source, TensorInfo)}
        self._parts: dict[TensorInfo, list[tuple[Assignment, Assembly]]] = {}
        self.blanks: list[Planned] = []
        for assignment in assignments:
            if not isinstance(assignment.source, TensorInfo):
                own = None if share is None or assignment.names[0] in share.whole else share
                assembly = Assembly(assignment.source, assignment.dtype, own)
                if (blank := assembly.blank) is not None:
                    self.blanks.append((assignment, blank.to(device)))
                for tensor in filter(assembly.waits_for, assignment.tensors):
                    self._parts.setdefault(tensor, []).append((assignment, assembly))

    def reads(self) -> list[Read]:
        """Every tensor that is wanted, once."""
        whole = [Read(tensor, _is_used_in_place(used, self._device)) for tensor, used in self._whole.items()]
        return whole + [self._read(tensor, used[0][1]) for tensor, used in self._parts.items()]

    def _read(self, tensor: TensorInfo, assembly: Assembly) -> Read:
        is_direct = assembly.reads_directly(tensor)
        return Read(tensor, is_direct, partial(assembly.memory_for, tensor) if is_direct else None)

    def values_of(self, filled: tuple[Run, Tensor]) -> list[Planned]:
        """Return the parameters that are whole with what was read now."""
        run, memory = filled
        return [
            planned
            for read in run.reads
            for planned in self._delivered(
                read.tensor, memory[read.tensor.start - run.start : read.tensor.end - run.start]
            )
        ]

    def _delivered(self, tensor: TensorInfo, raw: Tensor) -> Iterator[Planned]:
        where = self._store.where(tensor.file)
        if tensor in self._whole:
            used = self._whole[tensor]
            yield used, _value(tensor, raw, where, device=self._device, dtype=used.dtype)
        if tensor in self._parts:
            value = _value(tensor, raw, where, device="cpu", dtype=tensor.dtype)
            for assignment, assembly in self._parts[tensor]:
                if (made := assembly.deliver(tensor, value)) is not None:
                    yield assignment, made.to(self._device)


def _value(tensor: TensorInfo, raw: Tensor, where: str, *, device: str | torch.device, dtype: str) -> Tensor:
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
        return stored.to(device=device, dtype=TORCH_DTYPES[dtype])
    except (RuntimeError, MemoryError) as error:
        raise no_memory(where, tensor.num_bytes, error) from error


def _map_file(path: Path) -> Tensor:
    with reading(path):
        size = path.stat().st_size
    try:
        return torch.from_file(str(path), shared=False, size=size, dtype=torch.uint8)
    except RuntimeError as error:
        raise no_memory(str(path), size, error) from error


def _take_down(share: Share, assignments: Sequence[Assignment]) -> None:
    """Count parameters that are read whole, to be cast."""
    share.num_bytes += sum(assignment.source.num_bytes for assignment in assignments)
    share.in_memory.update(name for assignment in assignments for name in assignment.names)


def _is_used_in_place(assignment: Assignment, device: str | torch.device) -> bool:
    return torch.device(device).type == "cpu" and assignment.dtype == assignment.source.dtype
