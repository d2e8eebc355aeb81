"""Directories on this machine."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from typing_extensions import override

from wmtp.errors import NotFoundError, StorageError, URIError, WmtpError
from wmtp.storage.order import in_order
from wmtp.storage.store import MAX_LISTED, FileInfo, Piece, Store
from wmtp.storage.uri import ModelURI, parse_uri
from wmtp.untrusted import MAX_LEVELS, show

# More than this many at once wait for each other in the kernel.
_NUM_THREADS = min(4, os.cpu_count() or 1)


class LocalStore(Store):
    """A directory on this machine.

    Args:
        uri: Its address.
        allow_symlinks: Follow links that leave the directory. Links that stay inside it, or lead from a Hugging Face
            cache snapshot to its own `blobs/`, are always followed.
    """

    def __init__(self, uri: ModelURI, *, allow_symlinks: bool = False) -> None:
        self.uri, self.verified, self.has_paths = uri, {}, True
        self._root = self.directory = Path(uri.path)
        self._allow_symlinks = allow_symlinks
        with reading(uri):
            if not self._root.is_dir():
                raise _no_directory(uri)
            real_root = self._root.resolve()
        # In a Hugging Face cache, models--<org>--<name>/snapshots/<commit>/ holds links into the entry's own blobs/,
        # which since huggingface_hub 2 may be links into one blobs/ for the whole cache.
        entries = [parent.parent for parent in real_root.parents if parent.name == "snapshots"]
        blobs = [(entry / "blobs", entry.parent / "blobs") for entry in entries if entry.name.startswith("models--")]
        places = (real_root, *(blobs[0] if blobs else ()))
        self._real_places = tuple(f"{str(place).rstrip('/')}/" for place in places)

    @override
    def list_files(self) -> list[FileInfo]:
        with reading(self.uri):
            return sorted(self._walk(), key=lambda info: info.name)

    @override
    def stat(self, name: str) -> FileInfo:
        found = self._path(name).stat()
        return FileInfo(name, found.st_size, f"{found.st_dev}-{found.st_ino}-{found.st_mtime_ns}")

    @override
    def read_range(self, name: str, start: int, length: int) -> bytes:
        with reading(self.where(name)), self._path(name).open("rb") as file:
            file.seek(start)
            data = file.read(length)
        _check_length(self.where(name), start, len(data), length)
        return data

    @override
    def local_paths(self, names: Iterable[str]) -> dict[str, Path]:
        return {name: self._path(name) for name in names}

    @override
    def fill(self, pieces: Iterable[Piece]) -> Iterator[Piece]:
        with ThreadPoolExecutor(_NUM_THREADS) as pool:
            yield from in_order(pool, self._fill, pieces, ahead=_NUM_THREADS)

    @override
    def child(self, name: str) -> LocalStore:
        return LocalStore(self.uri / name, allow_symlinks=self._allow_symlinks)

    @override
    def expect(self, digests: Mapping[str, str]) -> None:
        """Do nothing: nothing arrives here. A lock, or `wmtp validate --deep`, hashes what is here."""

    def _fill(self, piece: Piece) -> Piece:
        return read_into(piece, self._path(piece.name), self.where(piece.name))

    def _walk(self) -> Iterator[FileInfo]:
        num_seen = 0
        for directory, subdirectories, names in os.walk(self._root):
            subdirectories[:] = [name for name in subdirectories if not name.startswith(".")]
            num_seen += 1 + len(names)
            if num_seen > MAX_LISTED:
                raise StorageError(f"{self.uri}: more than {MAX_LISTED:,} files", hint="name a smaller directory")
            if directory.count(os.sep) - str(self._root).count(os.sep) == MAX_LEVELS:
                subdirectories.clear()
            for path in (Path(directory, name) for name in names if not name.startswith(".")):
                if path.is_file():
                    yield FileInfo(path.relative_to(self._root).as_posix(), path.stat().st_size)

    def _path(self, name: str) -> Path:
        self.check_name(name)
        path = self._root / name
        with reading(self.where(name)):
            try:
                mode = path.stat().st_mode
            except FileNotFoundError:
                self._refuse_dangling(name)
                raise
        if not stat.S_ISREG(mode):
            raise StorageError(f"{self.where(name)}: not a regular file", hint="replace it with the file itself")
        if not self._allow_symlinks:
            self._check_link(name, path)
        return path

    def _refuse_dangling(self, name: str) -> None:
        """Raise StorageError when a file is missing because a link, of it or of a directory, points to nothing."""
        parts = name.split("/")
        for path in (self._root.joinpath(*parts[: depth + 1]) for depth in range(len(parts))):
            if path.is_symlink() and not path.exists():
                raise _dangling(self.where(path.relative_to(self._root).as_posix()), path)

    def _check_link(self, name: str, path: Path) -> None:
        real = os.path.realpath(path)
        if real.startswith(self._real_places):
            return
        raise StorageError(
            f"{self.where(name)}: a symbolic link to {show(real)}, outside the checkpoint",
            hint="copy the file, or pass allow_symlinks=True (--allow-symlinks) if you made this link",
        )


def read_into(piece: Piece, path: Path, where: str) -> Piece:
    """Read a piece of a file into its memory, and give it back; `where` is how errors name the file."""
    with reading(where), path.open("rb", buffering=0) as file:
        file.seek(piece.start)
        num_bytes = 0
        while read := file.readinto(piece.buffer[num_bytes:]):
            num_bytes += read
    _check_length(where, piece.start, num_bytes, len(piece.buffer))
    return piece


def _check_length(where: str, start: int, found: int, wanted: int) -> None:
    if found != wanted:
        raise StorageError(
            f"{where}: {found:,} bytes at {start:,}, {wanted:,} expected",
            hint="the file is shorter than it was a moment ago; copy it again",
        )


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


def _dangling(where: str, path: Path) -> StorageError:
    target = path.readlink()
    # In a Hugging Face cache the target is a blob: a download that was not finished, or a cache that was cleaned.
    return StorageError(
        f"{where}: a dangling symbolic link: {show(str(target))}, to which it points, is not there",
        hint="put the file there, or fetch the checkpoint again",
    )


def _no_directory(uri: ModelURI) -> StorageError:
    path = Path(uri.path)
    if path.is_symlink() and not path.exists():
        return _dangling(str(uri), path)
    if path.exists():
        return NotFoundError(f"{uri}: not a directory", hint=f"name the directory that holds it: {path.parent}")
    near = ", ".join(sorted(show(found.name) for found in path.parent.glob("*/"))[:8])
    advice = "check the path" + (near and f"; beside it are: {near}")
    if hub := _hub_address(uri.path):
        advice += f"; if the model of that name on the Hugging Face Hub is meant: {hub}"
    return NotFoundError(f"{uri}: no such directory", hint=advice)


def _hub_address(path: str) -> ModelURI | None:
    """Return the address on the Hub that a path without `./` looks like."""
    try:
        return parse_uri(f"hf://{path}")
    except URIError:
        return None
