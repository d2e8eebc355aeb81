"""A download in progress, with which a later process can go on."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError
from typing_extensions import Buffer

from wmtp.errors import StorageError
from wmtp.faults import StrictModel
from wmtp.manifest import SHA256
from wmtp.storage.cached.kept import free_bytes, move_into_place, open_kept
from wmtp.storage.cached.locks import try_lock

_MARK_BYTES = 64 << 20
_COPY_BYTES = 1 << 20
_MAX_JOURNAL_BYTES = 8 << 20  # of a file of some terabytes


class _Mark(StrictModel):
    """A line of a journal: what the first bytes of the part are."""

    size: Annotated[int, Field(gt=0)]
    sha256: SHA256


class PartFile:
    """The bytes of one file as they arrive, hashed on the way.

    Its name is unique, and nobody else writes to it. What parts of the same key have, whose owners are gone, is copied
    in first, as far as their journals say what it must be.

    Args:
        directory: Where parts are.
        key: What is downloaded; parts of one key have the same bytes in the end.
        size_bytes: How many bytes there will be.
        adopt: Begin with what earlier processes left.

    Attributes:
        size: Bytes so far.
        path: Where they are.

    Raises:
        OSError: If the directory cannot be written.
        StorageError: If the disk is full.
    """

    def __init__(self, directory: Path, key: str, size_bytes: int, *, adopt: bool = True) -> None:
        self.path = directory / f"{key}.{uuid.uuid4().hex}.part"
        self.size = 0
        self._size_bytes, self._sha256, self._marked = size_bytes, hashlib.sha256(), 0
        self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o644)
        with suppress(OSError):
            try_lock(self._file)
        if adopt:
            self._adopt(directory, key)

    def append(self, chunk: Buffer) -> None:
        """Add bytes at the end.

        Raises:
            StorageError: If the disk does not take them; the part is then gone.
        """
        self._sha256.update(chunk)
        try:
            self._write(memoryview(chunk).cast("B"))
            if self.size - self._marked >= _MARK_BYTES:
                self._mark()
        except OSError as error:
            free = free_bytes(self.path.parent)
            self.discard()
            raise StorageError(
                f"{self.path.parent}: {error.strerror} after {self.size:,} of {self._size_bytes:,} bytes"
                f" ({free:,} bytes are free now)",
                hint="make room there, name another directory in WMTP_CACHE, or keep nothing with --no-cache",
            ) from error

    def sha256(self) -> str:
        """Return the digest of all bytes so far, in hexadecimal digits."""
        return self._sha256.hexdigest()

    def finish(self, final: Path, *, sync: bool = False) -> os.stat_result:
        """Give the part its final name, read-only, in place of what has that name; returns what the system says of it.

        Args:
            final: On the same disk.
            sync: First wait until all bytes are on the disk.
        """
        # Whoever may read the part may read the file; nobody may write to what is mapped into models.
        os.fchmod(self._file, os.fstat(self._file).st_mode & 0o444)
        if sync:
            os.fsync(self._file)
        try:
            move_into_place(self.path, final)
        except FileNotFoundError:
            move_into_place(self._copy_anew(), final)
        found = os.fstat(self._file)
        self.discard()
        return found

    def close(self) -> None:
        """Leave what is there to a later process; for when no more bytes come for now."""
        if self._file >= 0:
            if self.size == 0:
                self.discard()
                return
            with suppress(OSError):
                self._mark()
            self._close()

    def discard(self) -> None:
        """Remove the part."""
        if self._file >= 0:
            remove_part(self.path)
            self._close()

    def _close(self) -> None:
        os.close(self._file)
        self._file = -1

    def _write(self, chunk: memoryview) -> None:
        while chunk:
            written = os.write(self._file, chunk)
            self.size += written
            chunk = chunk[written:]

    def _mark(self) -> None:
        if self.size == self._marked:
            return
        line = _Mark(size=self.size, sha256=self.sha256()).model_dump_json() + "\n"
        descriptor = os.open(_journal(self.path), os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o644)
        try:
            os.write(descriptor, line.encode())
        finally:
            os.close(descriptor)
        self._marked = self.size

    def _adopt(self, directory: Path, key: str) -> None:
        others = [path for path in directory.glob(f"{key}.*.part") if path != self.path]
        for path in sorted(others, key=_last_size, reverse=True):
            try:
                with owned(path) as (descriptor, is_abandoned):
                    if self.size == 0 and is_abandoned is not False:
                        self._copy_prefix(descriptor, _read_marks(path))
                    if is_abandoned:
                        remove_part(path)
            except StorageError:
                raise  # the disk is full
            except OSError:
                continue  # gone, or not ours

    def _copy_prefix(self, descriptor: int, marks: list[_Mark]) -> None:
        """Take over what another part has, up to the last mark that is true."""
        for mark in marks:
            if not self.size < mark.size <= self._size_bytes:
                return
            before, size = self._sha256.copy(), self.size
            while chunk := _read_some(descriptor, min(_COPY_BYTES, mark.size - self.size)):
                self.append(chunk)
            if self.size < mark.size or self.sha256() != mark.sha256:
                self._go_back(size, before)
                return
        with suppress(OSError):
            self._mark()

    def _go_back(self, size: int, sha256: hashlib._Hash) -> None:
        os.ftruncate(self._file, size)
        os.lseek(self._file, size, os.SEEK_SET)
        self.size, self._sha256, self._marked = size, sha256, min(self._marked, size)
        _journal(self.path).unlink(missing_ok=True)
        if size:
            self._marked = 0
            self._mark()

    def _copy_anew(self) -> Path:
        """Write the bytes under a new name: where locks lie, somebody took this part for abandoned and removed it."""
        path = self.path.with_name(f"{uuid.uuid4().hex}.tmp")
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o444)
        os.lseek(self._file, 0, os.SEEK_SET)
        with os.fdopen(os.dup(self._file), "rb") as source, os.fdopen(os.dup(descriptor), "wb") as copy:
            shutil.copyfileobj(source, copy, _COPY_BYTES)
        os.close(self._file)
        self._file = descriptor
        return path


@contextmanager
def owned(path: Path) -> Iterator[tuple[int, bool | None]]:
    """Open a part that may be somebody's: gives the descriptor, and whether its owner is gone (None: nobody knows).

    Raises:
        OSError: If it cannot be opened, or is not ours to go on with.
    """
    with open_kept(path) as file:
        if os.fstat(file.fileno()).st_uid != os.geteuid():
            raise PermissionError(errno.EPERM, "not a part of ours", str(path))
        yield file.fileno(), _is_abandoned(file.fileno())


def remove_part(path: Path) -> None:
    """Remove a part and its journal."""
    with suppress(OSError):
        path.unlink()
    with suppress(OSError):
        _journal(path).unlink()


def _is_abandoned(descriptor: int) -> bool | None:
    try:
        return try_lock(descriptor)
    except OSError:
        return None


def _read_some(descriptor: int, num_bytes: int) -> bytes:
    try:
        return os.read(descriptor, num_bytes)
    except OSError:  # a damaged disk: as if it ended here
        return b""


def _journal(part: Path) -> Path:
    return part.with_suffix(".journal")


def _read_marks(part: Path) -> list[_Mark]:
    """The lines of a part's journal, up to the first that is none."""
    try:
        with open_kept(_journal(part)) as file:
            lines = file.read(_MAX_JOURNAL_BYTES).split(b"\n")
    except OSError:
        return []
    marks: list[_Mark] = []
    with suppress(ValidationError):
        for line in lines:
            marks.append(_Mark.model_validate_json(line))  # noqa: PERF401  those before a bad one count
    return marks


def _last_size(part: Path) -> int:
    return max((mark.size for mark in _read_marks(part)), default=0)
