"""The one interface through which every room above reads a checkpoint's files.

A `Store` is opened on one directory (or key prefix, or repository) and speaks of files by relative name only.
Nothing above this room knows whether the bytes are on a disk or behind a network.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypedDict

from typing_extensions import Buffer

from wmtp.errors import NotFoundError, StorageError
from wmtp.manifest import verify_arrival
from wmtp.storage.uri import ModelURI
from wmtp.untrusted import plain, relative_name_fault, show

MAX_LISTED = 100_000

_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class FileInfo:
    """A file of a store.

    Attributes:
        name: Relative to the store, `/`-separated.
        size_bytes: Its size.
        version: What tells this content from a later one under the same name; empty where nothing does.
    """

    name: str
    size_bytes: int
    version: str = field(default="", compare=False)


@dataclass(frozen=True)
class Piece:
    """A run of bytes of a file, and the memory that is to hold it.

    Attributes:
        name: The file.
        start: The first byte of the run in the file.
        buffer: Writable memory; its length is that of the run.
    """

    name: str
    start: int
    buffer: memoryview


class Access(TypedDict, total=False):
    """How the files below an address are got at; `open_store` says what each means."""

    allow_symlinks: bool
    cache: bool
    cache_dir: str | Path | None


class Store(ABC):
    """The files below one address, each in the version in which it was first seen.

    Attributes:
        uri: The address.
        directory: Where the files lie on this machine; None when they are somewhere else.
        has_paths: Whether files have paths on this machine, or get them in the cache, so that they can be mapped.
        verified: `sha256:<hex>` of the files that were found to be what a lock pins, by name.
    """

    uri: ModelURI
    directory: Path | None
    has_paths: bool
    verified: dict[str, str]

    @abstractmethod
    def list_files(self) -> list[FileInfo]:
        """Return every regular file below the address, sorted by name; hidden and very deep ones are left out."""

    @abstractmethod
    def stat(self, name: str) -> FileInfo:
        """Return what is known of one file without reading it.

        Raises:
            NotFoundError: If there is no such file.
            StorageError: If the name breaks the path rule, or is no regular file.
        """

    @abstractmethod
    def read_range(self, name: str, start: int, length: int) -> bytes:
        """Return exactly `length` bytes from byte `start`."""

    @abstractmethod
    def local_paths(self, names: Iterable[str]) -> dict[str, Path]:
        """Return a local path for each named file, fetching what is not local yet."""

    @abstractmethod
    def fill(self, pieces: Iterable[Piece]) -> Iterator[Piece]:
        """Read pieces into their memory, several at once, and give each back in order once it is full."""

    @abstractmethod
    def child(self, name: str) -> Store:
        """Return the store of a directory further down."""

    @abstractmethod
    def expect(self, digests: Mapping[str, str]) -> None:
        """Hold files that have yet to arrive on this machine to digests: 64 hexadecimal digits of SHA-256 by name."""

    def stream(self, name: str, start: int = 0) -> Iterator[Buffer]:
        """Yield a file's bytes from `start` on, in order."""
        size = self.stat(name).size_bytes
        for first in range(start, size, _CHUNK_BYTES):
            yield self.read_range(name, first, min(_CHUNK_BYTES, size - first))

    def read_ranges(self, ranges: Sequence[tuple[str, int, int]]) -> list[bytes]:
        """Return what `read_range` returns for each (name, start, length)."""
        return [self.read_range(*wanted) for wanted in ranges]

    def read_bytes(self, name: str, *, max_bytes: int) -> bytes:
        """Return a small file whole, or raise StorageError when it is larger than `max_bytes`."""
        size = self.stat(name).size_bytes
        if size > max_bytes:
            raise StorageError(
                f"{self.where(name)}: {size:,} bytes, more than the {max_bytes:,} allowed for such a file",
                hint="check that this is the file you meant; a file of this kind is small",
            )
        return self.read_range(name, 0, size)

    def expected(self, name: str) -> str | None:  # noqa: ARG002  for stores that expect something
        """Return the `sha256:<hex>` that a file must have when it is read into memory, if one is known."""
        return None

    def confirm(self, name: str, digest: str) -> None:
        """Raise ArrivalError unless the `sha256:<hex>` of a file that was read into memory is the one expected."""
        verify_arrival(self.where(name), digest, self.expected(name) or digest)

    def bytes_to_fetch(self, names: Iterable[str]) -> int:  # noqa: ARG002  for stores whose files are elsewhere
        """Return how many bytes `local_paths` would move."""
        return 0

    def where(self, name: str) -> str:
        """Return the address of a file as errors show it; its name may be a stranger's."""
        return f"{str(self.uri).rstrip('/')}/{plain(name)}"

    def has(self, name: str) -> bool:
        """Say whether a regular file of that name is there."""
        try:
            self.stat(name)
        except NotFoundError:
            return False
        return True

    def check_name(self, name: str) -> None:
        """Raise StorageError when a name breaks the path rule."""
        if fault := relative_name_fault(name):
            raise StorageError(
                f"{self.uri}: the file name {show(name)} {fault}",
                hint="name files relative to the checkpoint's directory",
            )
