"""Which files of which checkpoints are in the cache: one small record a file version, which nobody else writes."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from wmtp.faults import StrictModel
from wmtp.manifest import SHA256
from wmtp.storage.cached.kept import read_kept, write_kept

_TOUCHED_SECONDS = 60  # a file that is asked for ten times a second need not be touched each time


@dataclass(frozen=True)
class Source:
    """One version of one file of a checkpoint.

    Attributes:
        uri: The address of the checkpoint.
        name: The file's name in it.
        size_bytes: Its size.
        version: An ETag or the like; empty when none is known: then another process never takes it from the cache.
    """

    uri: str
    name: str
    size_bytes: int
    version: str

    @property
    def key(self) -> str:
        """64 hexadecimal digits that stand for it."""
        return _digest(self.uri, self.name, self.version, str(self.size_bytes))


class Record(StrictModel):
    """What the cache knows of one version of one file."""

    uri: str
    name: str
    size: int
    version: str
    sha256: SHA256

    @property
    def source(self) -> Source:
        """The file version that it speaks of."""
        return Source(self.uri, self.name, self.size, self.version)


@dataclass(frozen=True)
class Entry:
    """A file in the cache.

    Attributes:
        source: Which file.
        sha256: Its digest, which is the name of its blob.
        last_used: When it was last asked for, to a minute, in seconds since 1970.
        path: Its record.
    """

    source: Source
    sha256: str
    last_used: float
    path: Path


class Records:
    """The directory `entries/` of a cache.

    Args:
        root: The cache.
    """

    def __init__(self, root: Path) -> None:
        self.directory = root / "entries"
        self._root, self._parts = root, root / "parts"

    def path(self, source: Source) -> Path:
        """Return where the record of a file version is, or would be."""
        file = _digest(source.name, source.version, str(source.size_bytes))
        return self.directory / _digest(source.uri) / f"{file}.json"

    def find(self, source: Source) -> str | None:
        """Return the digest that the bytes of a file version had, where that is known."""
        record = read_kept(self.path(source), Record, self._root)
        return record.sha256 if record and record.source == source else None

    def write(self, source: Source, sha256: str) -> None:
        """Remember the digest of a file version.

        Raises:
            OSError: If it cannot be written.
        """
        record = Record(uri=source.uri, name=source.name, size=source.size_bytes, version=source.version, sha256=sha256)
        path, data = self.path(source), record.model_dump_json().encode()
        if path.parent.is_symlink() or path.parent.is_file():
            path.parent.unlink(missing_ok=True)
        path.parent.mkdir(exist_ok=True)
        try:
            write_kept(path, data, self._parts)
        except FileNotFoundError:  # where locks lie, somebody just removed the empty directory
            path.parent.mkdir(exist_ok=True)
            write_kept(path, data, self._parts)

    def touch(self, source: Source) -> None:
        """Remember that a file was asked for just now; a cache that may only be read remembers nothing."""
        path = self.path(source)
        with suppress(OSError):
            if abs(time.time() - path.stat().st_mtime) > _TOUCHED_SECONDS:
                os.utime(path)

    def all(self) -> Iterator[Entry]:
        """Give every record that is one; what is damaged or does not stand in its place is left out."""
        for path in self.paths():
            record = read_kept(path, Record, self._root)
            with suppress(OSError):
                if record and self.path(record.source) == path:
                    yield Entry(record.source, record.sha256, path.lstat().st_mtime, path)

    def paths(self) -> Iterator[Path]:
        """Give everything that stands where records do."""
        for directory in children(self.directory):
            if directory.is_dir() and not directory.is_symlink():
                yield from children(directory)


def children(directory: Path) -> list[Path]:
    """Return what is in a directory of the cache; nothing when there is none."""
    try:
        return sorted(directory.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []


def _digest(*texts: str) -> str:
    return hashlib.sha256(json.dumps(texts).encode()).hexdigest()
