"""Moving many ranges of many objects at once, in bounded memory."""

from __future__ import annotations

import os
import threading
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from typing import Self

from typing_extensions import Buffer

from wmtp.errors import StorageError
from wmtp.storage.client import ObjectClient, ObjectInfo
from wmtp.storage.order import Waited, in_order
from wmtp.storage.progress import Transfer
from wmtp.storage.store import Piece

MAX_FILES = 4  # at once; what one connection gives is then hashed while it is still in the processor's cache

_PART_BYTES = 32 << 20  # servers take a while to get going with each request


class OptimizedS3Transfer:
    """Moves bytes between one bucket and this process.

    Object stores give each connection a share of what the network can carry, so several are open at once: two for each
    core, since more only wait for each other. At most one part a connection, and one more, is held in memory.

    As a context manager it gives up what is still on its way when the block raises, Ctrl-C included.

    Args:
        client: Makes the requests; it tries again, and goes on where a connection broke off.
        progress: Told of every byte that arrives.
        num_files: How many files share the connections.
    """

    def __init__(self, client: ObjectClient, progress: Transfer, *, num_files: int = 1) -> None:
        self._client, self._progress = client, progress
        self._num_connections = max(1, num_connections() // min(num_files, MAX_FILES))
        self._given_up = threading.Event()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        if any(raised):
            self._given_up.set()

    def stream(self, info: ObjectInfo, start: int = 0) -> Iterator[Buffer]:
        """Yield the bytes of one version of an object from `start` on, in order.

        Raises:
            ChangedError: If the object is another version by now.
            StorageError: If it cannot be had within the time for trying again.
        """
        # Where one connection keeps hashing busy, more would only push its chunks out of the processor's cache.
        with closing(self._counted(info, start, info.size_bytes)) as chunks:
            waited = Waited(chunks)
            for chunk in waited:
                start += len(memoryview(chunk))
                yield chunk
                if self._num_connections > 1 and waited.mostly:
                    break
        firsts = range(start, info.size_bytes, _PART_BYTES)
        with ThreadPoolExecutor(self._num_connections) as pool:
            for part in in_order(pool, partial(self._part, info), firsts, ahead=self._num_connections):
                yield from part

    def fill(self, pieces: Iterable[tuple[ObjectInfo, Piece]]) -> Iterator[Piece]:
        """Read pieces of objects into their memory, and give each back in order once it is full."""
        parts = (
            (info, piece, first) for info, piece in pieces for first in range(0, max(len(piece.buffer), 1), _PART_BYTES)
        )
        with ThreadPoolExecutor(self._num_connections) as pool:
            for filled in in_order(pool, lambda part: self._fill(*part), parts, ahead=2 * self._num_connections):
                if filled is not None:
                    yield filled

    def _fill(self, info: ObjectInfo, piece: Piece, first: int) -> Piece | None:
        """Fill one part of a piece; gives the piece back if that was its last one."""
        end = min(first + _PART_BYTES, len(piece.buffer))
        for chunk in self._counted(info, piece.start + first, piece.start + end):
            view = memoryview(chunk)
            piece.buffer[first : first + len(view)] = view
            first += len(view)
        return piece if end == len(piece.buffer) else None

    def _part(self, info: ObjectInfo, first: int) -> list[Buffer]:
        return list(self._counted(info, first, min(first + _PART_BYTES, info.size_bytes)))

    def _counted(self, info: ObjectInfo, start: int, end: int) -> Generator[Buffer]:
        for chunk in self._client.stream(info, start, end):
            if self._given_up.is_set():
                raise StorageError(f"{info.key}: given up", hint="another part of the same transfer failed")
            self._progress.advance(len(memoryview(chunk)))
            yield chunk


def num_connections() -> int:
    """Return how many connections to one bucket are worth having on this machine."""
    return min(max(2 * (os.cpu_count() or 1), 4), 16)
