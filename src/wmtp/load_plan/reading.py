"""Reading stored tensors into memory: in long runs or each to where it belongs, and held to digests."""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import torch
from torch import Tensor

from wmtp.checkpoint.headers import parse_header
from wmtp.checkpoint.tensors import TensorInfo
from wmtp.errors import IntegrityError, StorageError
from wmtp.storage.local import read_into
from wmtp.storage.order import in_order
from wmtp.storage.store import Piece, Store
from wmtp.untrusted import show

# More than this many at once wait for each other in the kernel.
NUM_THREADS = min(4, os.cpu_count() or 1)
_RUN_BYTES = 64 << 20  # of memory that is let go of once its tensors are cast or copied to a device
_ALIGNMENT = (
    64  # of torch's own allocations; elsewhere a processor may compute with other instructions, and round apart
)


@dataclass(frozen=True)
class Read:
    """A stored tensor that is to be read.

    Attributes:
        tensor: Which.
        is_kept: Whether the memory that it is read into becomes a parameter's.
        memory: Gives the bytes that it is read into; None: memory of its own, perhaps together with its neighbours.
    """

    tensor: TensorInfo
    is_kept: bool = False
    memory: Callable[[], Tensor] | None = None


@dataclass(frozen=True)
class Run:
    """Bytes of a file that are read in one go.

    Attributes:
        file: The file.
        start: First byte.
        end: One past the last.
        reads: The tensors among them, in the order of the file.
    """

    file: str
    start: int
    end: int
    reads: tuple[Read, ...] = ()


def filled_runs(
    store: Store, reads: Sequence[Read], files: Mapping[str, Path] | None = None
) -> Iterator[tuple[Run, Tensor]]:
    """Yield runs with their bytes, once they are read; a file's digest is checked when its last one is.

    Args:
        store: The checkpoint's files.
        reads: Every tensor that is wanted, once.
        files: Paths of the files on this machine, which are known to be what they must be; None: ask the store.

    Raises:
        IntegrityError: If a file has another digest than it must.
    """
    if files is None:
        runs = [run for file in _by_file(reads) for run in _covering(store, _runs(file))]
        return _proven(store, runs, store.fill)
    runs = [run for file in _by_file(reads) for run in _runs(file)]
    return _read(store, runs, lambda pieces: _from_paths(files, pieces))


def _by_file(reads: Sequence[Read]) -> Iterator[list[Read]]:
    ordered = sorted(reads, key=lambda read: (read.tensor.file, read.tensor.start))
    for _, some in groupby(ordered, key=lambda read: read.tensor.file):
        yield list(some)


def _runs(reads: Sequence[Read]) -> list[Run]:
    """Divide what is wanted of one file into runs."""
    groups: list[list[Read]] = []
    for read in reads:
        if groups and _continues(groups[-1], read):
            groups[-1].append(read)
        else:
            groups.append([read])
    return [Run(group[0].tensor.file, group[0].tensor.start, group[-1].tensor.end, tuple(group)) for group in groups]


def _continues(group: Sequence[Read], read: Read) -> bool:
    first, last = group[0], group[-1]
    offset = read.tensor.start - first.tensor.start
    if first.memory or read.memory or last.tensor.end != read.tensor.start or offset > _RUN_BYTES:
        return False
    # What is cast lets go of its memory, what is used in place keeps it, and begins where torch would have put it.
    return first.is_kept == read.is_kept and not (read.is_kept and offset % _ALIGNMENT)


def _covering(store: Store, runs: list[Run]) -> list[Run]:
    """The runs, and everything between them too where a digest must be held."""
    file = runs[0].file
    return list(_without_holes(runs, store.stat(file).size_bytes)) if store.expected(file) else runs


def _without_holes(runs: Sequence[Run], size: int) -> Iterator[Run]:
    reached = 0
    for run in (*runs, Run(runs[0].file, size, size)):
        if reached < run.start:
            yield Run(run.file, reached, run.start)
        yield run
        reached = run.end


def _read(
    store: Store, runs: Sequence[Run], fill: Callable[[Iterator[Piece]], Iterator[Piece]]
) -> Iterator[tuple[Run, Tensor]]:
    waiting: deque[tuple[Run, Tensor]] = deque()

    def pieces() -> Iterator[Piece]:
        for run in runs:
            own = run.reads[0].memory if run.reads else None
            memory = own() if own else _empty(store.where(run.file), run.end - run.start)
            waiting.append((run, memory))
            yield Piece(run.file, run.start, memory.numpy().data)

    for _ in fill(pieces()):
        yield waiting.popleft()


def _proven(
    store: Store, runs: Sequence[Run], fill: Callable[[Iterator[Piece]], Iterator[Piece]]
) -> Iterator[tuple[Run, Tensor]]:
    digest, first = hashlib.sha256(), b""
    for run, memory in _read(store, runs, fill):
        if store.expected(run.file):
            if run.start == 0:
                digest, first = hashlib.sha256(), bytes(memory.numpy().data)
            digest.update(memory.numpy().data)
            if run.end == store.stat(run.file).size_bytes:
                store.confirm(run.file, f"sha256:{digest.hexdigest()}")
                _check_header(store, run.file, first, [read.tensor for other in runs for read in other.reads])
        yield run, memory


def _check_header(store: Store, file: str, first: bytes, planned: Sequence[TensorInfo]) -> None:
    """Raise IntegrityError unless the header that belongs to the verified bytes is the one the plan was made from."""
    where, header = store.where(file), first[8 : 8 + int.from_bytes(first[:8], "little")]
    found = parse_header(header, where=where, file=file, size=store.stat(file).size_bytes)
    if not {tensor for tensor in planned if tensor.file == file} <= set(found):
        raise IntegrityError(f"{where}: its header changed while it was being loaded", hint="load it again")


def _from_paths(files: Mapping[str, Path], pieces: Iterator[Piece]) -> Iterator[Piece]:
    with ThreadPoolExecutor(NUM_THREADS) as pool:
        yield from in_order(
            pool, lambda piece: read_into(piece, files[piece.name], str(files[piece.name])), pieces, ahead=NUM_THREADS
        )


def _empty(where: str, num_bytes: int) -> Tensor:
    try:
        return torch.empty(num_bytes, dtype=torch.uint8, device="cpu")
    except RuntimeError as error:
        raise no_memory(where, num_bytes, error) from error


def no_memory(where: str, num_bytes: int, error: Exception) -> StorageError:
    """Return the error for bytes of a file for which there is no memory."""
    return StorageError(
        f"{where}: {num_bytes:,} bytes of it cannot be held in memory: {show(str(error))}",
        hint="load it on a machine or device with more memory, or in a smaller dtype",
    )
