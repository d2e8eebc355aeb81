"""The one interface through which every room above reads a checkpoint's files.

A `Store` is opened on one directory (or key prefix, or repository) and speaks of files by relative name only.
Nothing above this room knows whether the bytes are on a disk or behind a network.
"""

from __future__ import annotations

import os
import stat
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from typing_extensions import override

from wmtp.errors import NotFoundError, StorageError, WmtpError
from wmtp.storage.uri import ModelURI, parse_uri
from wmtp.untrusted import MAX_LEVELS, plain, relative_name_fault, show

_MAX_LISTED = 100_000


@dataclass(frozen=True)
class FileInfo:
    """A file of a store.

    Attributes:
        name: Relative to the store, `/`-separated.
        size_bytes: Its size.
    """

    name: str
    size_bytes: int


class Store(ABC):
    """The files below one address.

    Attributes:
        uri: The address.
        verified: `sha256:<hex>` of the files that were found to be what a lock pins, by name.
    """

    uri: ModelURI
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

    def read_bytes(self, name: str, *, max_bytes: int) -> bytes:
        """Return a small file whole, or raise StorageError when it is larger than `max_bytes`."""
        size = self.stat(name).size_bytes
        if size > max_bytes:
            raise StorageError(
                f"{self.where(name)}: {size:,} bytes, more than the {max_bytes:,} allowed for such a file",
                hint="check that this is the file you meant; a file of this kind is small",
            )
        return self.read_range(name, 0, size)

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


class LocalStore(Store):
    """A directory on this machine.

    Args:
        uri: Its address.
        allow_symlinks: Follow links that leave the directory. Links that stay inside it, or lead from a Hugging Face
            cache snapshot to its own `blobs/`, are always followed.
    """

    def __init__(self, uri: ModelURI, *, allow_symlinks: bool = False) -> None:
        self.uri, self.verified = uri, {}
        self._root = Path(uri.path)
        self._allow_symlinks = allow_symlinks
        with reading(uri):
            if not self._root.is_dir():
                raise _no_directory(uri)
            real_root = self._root.resolve()
        # In a Hugging Face cache, models--<org>--<name>/snapshots/<commit>/ holds links into the entry's own blobs/.
        entries = [parent.parent for parent in real_root.parents if parent.name == "snapshots"]
        blobs = [entry / "blobs" for entry in entries if entry.name.startswith("models--")]
        self._real_places = tuple(f"{str(place).rstrip('/')}/" for place in (real_root, *blobs[:1]))

    @override
    def list_files(self) -> list[FileInfo]:
        with reading(self.uri):
            return sorted(self._walk(), key=lambda info: info.name)

    @override
    def stat(self, name: str) -> FileInfo:
        return FileInfo(name, self._path(name).stat().st_size)

    @override
    def read_range(self, name: str, start: int, length: int) -> bytes:
        with reading(self.where(name)), self._path(name).open("rb") as file:
            file.seek(start)
            data = file.read(length)
        if len(data) != length:
            raise StorageError(
                f"{self.where(name)}: {len(data):,} bytes at {start:,}, {length:,} expected",
                hint="the file is shorter than it was a moment ago; copy it again",
            )
        return data

    @override
    def local_paths(self, names: Iterable[str]) -> dict[str, Path]:
        return {name: self._path(name) for name in names}

    def _walk(self) -> Iterator[FileInfo]:
        num_seen = 0
        for directory, subdirectories, names in os.walk(self._root):
            subdirectories[:] = [name for name in subdirectories if not name.startswith(".")]
            num_seen += 1 + len(names)
            if num_seen > _MAX_LISTED:
                raise StorageError(f"{self.uri}: more than {_MAX_LISTED:,} files", hint="name a smaller directory")
            if directory.count(os.sep) - str(self._root).count(os.sep) == MAX_LEVELS:
                subdirectories.clear()
            for path in (Path(directory, name) for name in names if not name.startswith(".")):
                if path.is_file():
                    yield FileInfo(path.relative_to(self._root).as_posix(), path.stat().st_size)

    def _path(self, name: str) -> Path:
        if fault := relative_name_fault(name):
            raise StorageError(
                f"{self.uri}: the file name {show(name)} {fault}",
                hint="name files relative to the checkpoint's directory",
            )
        path = self._root / name
        with reading(self.where(name)):
            mode = path.stat().st_mode
        if not stat.S_ISREG(mode):
            raise StorageError(f"{self.where(name)}: not a regular file", hint="replace it with the file itself")
        if not self._allow_symlinks:
            self._check_link(name, path)
        return path

    def _check_link(self, name: str, path: Path) -> None:
        real = os.path.realpath(path)
        if real.startswith(self._real_places):
            return
        raise StorageError(
            f"{self.where(name)}: a symbolic link to {show(real)}, outside the checkpoint",
            hint="copy the file, or pass allow_symlinks=True (--allow-symlinks) if you made this link",
        )


def open_store(uri: str | Path | ModelURI, *, allow_symlinks: bool = False) -> Store:
    """Open the files below an address.

    Raises:
        URIError: If the text is no address.
        NotFoundError: If nothing stands there.
        StorageError: If this version has no client for that scheme.
    """
    parsed = parse_uri(uri)
    if parsed.scheme != "file":
        raise StorageError(
            f"{parsed}: this version of wmtp reads local directories only, not {parsed.scheme}://",
            hint="copy the checkpoint to a local directory and name that",
        )
    return LocalStore(parsed, allow_symlinks=allow_symlinks)


@contextmanager
def reading(uri: object) -> Iterator[None]:
    """Say in our own words what the operating system has against a path."""
    try:
        yield
    except WmtpError:
        raise
    except (FileNotFoundError, NotADirectoryError) as error:
        raise NotFoundError(f"{uri}: no such file", hint="see what is there with 'wmtp inspect DIR'") from error
    except OSError as error:
        raise StorageError(f"{uri}: {error.strerror}", hint="check the path and its permissions") from error


def _no_directory(uri: ModelURI) -> NotFoundError:
    path = Path(uri.path)
    if path.exists():
        return NotFoundError(f"{uri}: not a directory", hint=f"name the directory that holds it: {path.parent}")
    near = ", ".join(sorted(show(found.name) for found in path.parent.glob("*/"))[:8])
    return NotFoundError(f"{uri}: no such directory", hint="check the path" + (near and f"; beside it are: {near}"))
