"""Where files arrive that are to become a directory: in `files/`, which becomes it by one rename.

Until a file is whole and right it grows in `parts/`, where a later fetch finds it and goes on.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from typing_extensions import Buffer

from wmtp.errors import ChangedError, StorageError, WmtpError
from wmtp.manifest import digest_path
from wmtp.publishing.publish import refuse_existing
from wmtp.storage.cached.partial import PartFile
from wmtp.storage.local import reading
from wmtp.storage.progress import Transfer, watching
from wmtp.storage.replace import fsync, replace_file
from wmtp.storage.store import FileInfo, Store
from wmtp.transport.claims import Claims
from wmtp.transport.report import MovedFile
from wmtp.untrusted import show, show_all

_COPY_BYTES = 1 << 20


class Landing:
    """The place where the files of one directory arrive.

    Args:
        working: A directory in which no other process writes.
        final: What it becomes.
        mode: The permissions of its files.
    """

    def __init__(self, working: Path, final: Path, mode: int) -> None:
        self._final, self._files, self._parts, self._mode = final, working / "files", working / "parts", mode
        self._damaged: set[str] = set()

    def begin(self, store: Store, claims: Claims, wanted: Sequence[FileInfo]) -> None:
        """Get ready for the files of a store; may be called again with what the store has by then.

        Raises:
            StorageError: If the disk has no room for them, or somebody else put something there.
        """
        self._store, self._claims = store, claims
        for directory in (self._files, self._parts):
            directory.mkdir(exist_ok=True)
            _refuse_links(directory)
        sizes = {info.name: info.size_bytes for info in wanted}
        for name in self._arrived() - set(sizes):  # of an older version of the checkpoint
            (self._files / name).unlink()
        needed = sum(size for name, size in sizes.items() if not (self._files / name).is_file())
        free = shutil.disk_usage(self._files).free + sum(part.stat().st_size for part in self._parts.glob("*.part"))
        if needed > free:
            raise StorageError(
                f"{self._final.parent}: {needed:,} bytes are needed, {free:,} are free",
                hint="make room there, or name a directory on another disk",
            )

    def receive(self, progress: Transfer, info: FileInfo, given_up: threading.Event) -> MovedFile:
        """Bring one file here, whole and with the digest that it must have; what an earlier try left is used.

        Raises:
            ArrivalError: If it has another digest. The next try takes it from where it comes from, not from a cache.
            ChangedError: If it is another version by now.
        """
        version = self._store.stat(info.name).version
        key = _key(self._store, info, version or self._claims.digest(info.name))
        with reading(self._files / info.name), watching(lambda _: None):  # who watches is told of the whole
            sha256, was_here = self._kept(info.name, key), True
            if sha256 is None:
                was_here = info.name not in self._damaged and _is_here(self._store, info)
                sha256 = self._fetch(info, key, partial(self._chunks, progress, info, given_up, was_here))
        if self._store.stat(info.name).version != version:
            raise ChangedError(
                f"{self._store.where(info.name)}: changed while it was being copied",
                hint="wait until nobody writes to it, and try again",
            )
        return MovedFile(info.name, info.size_bytes, sha256, self._claims.sources(info.name), was_here)

    def publish(self, wanted: Sequence[FileInfo]) -> None:
        """Give the directory its name, for good: after that, not even a power failure takes it away.

        Raises:
            StorageError: If something has that name by now, or this disk has lost a file.
        """
        if lost := {info.name for info in wanted} ^ self._arrived():
            raise StorageError(
                f"{self._final}: this disk did not keep apart or keep at all: {', '.join(show_all(sorted(lost)))}",
                hint="does it tell upper case from lower case? name a directory on another one",
            )
        for directory in [path for path in self._files.rglob("*") if path.is_dir()] + [self._files]:
            fsync(directory)
        refuse_existing(self._final)  # again, as minutes have passed: rename replaces an empty directory
        self._files.rename(self._final)
        fsync(self._final.parent)

    def _kept(self, name: str, key: str) -> str | None:
        """Return the digest of a file that has arrived before, if it is still what it was then."""
        record, file = self._record(key), self._files / name
        if not (record.is_file() and file.is_file()):
            return None
        found = digest_path(file, name).sha256
        return found if found == record.read_text() and self._claims.digest(name) in (None, found) else None

    def _fetch(self, info: FileInfo, key: str, chunks: Callable[[int], Iterator[Buffer]]) -> str:
        part = PartFile(self._parts, key, info.size_bytes)
        try:
            for chunk in chunks(part.size):
                _append(part, chunk)
            self._check(info, part)
            final = self._files / info.name
            final.parent.mkdir(parents=True, exist_ok=True)
            part.finish(final)
        finally:
            part.close()
        final.chmod(self._mode)
        fsync(final)
        replace_file(self._record(key), part.sha256().encode())
        return part.sha256()

    def _check(self, info: FileInfo, part: PartFile) -> None:
        try:
            if part.size != info.size_bytes:
                raise ChangedError(
                    f"{self._store.where(info.name)}: {part.size:,} bytes arrived, {info.size_bytes:,} are listed",
                    hint="wait until nobody writes to it, and try again",
                )
            self._claims.check(info.name, part.sha256())
        except WmtpError:
            self._damaged.add(info.name)
            part.discard()
            raise

    def _chunks(
        self, progress: Transfer, info: FileInfo, given_up: threading.Event, is_here: bool, start: int
    ) -> Iterator[Buffer]:
        progress.advance(start)
        store, name = self._store, info.name
        for chunk in _local_chunks(store, name, start) if is_here else store.stream(name, start):
            if given_up.is_set():
                raise StorageError(f"{store.where(name)}: given up", hint="another file failed")
            progress.advance(memoryview(chunk).nbytes)
            yield chunk

    def _record(self, key: str) -> Path:
        return self._parts / f"{key}.sha256"

    def _arrived(self) -> set[str]:
        return {path.relative_to(self._files).as_posix() for path in self._files.rglob("*") if not path.is_dir()}


def _refuse_links(directory: Path) -> None:
    """Raise StorageError for what no fetch makes: it would lead files, or their removal, to somewhere else."""
    for path in (directory, *directory.rglob("*")):
        if path.is_symlink() or not (path.is_dir() or path.is_file()):
            raise StorageError(
                f"{show(str(path))}: a link or special file, which no fetch makes",
                hint=f"see who made it, and remove {directory.parent}",
            )


def _append(part: PartFile, chunk: Buffer) -> None:
    try:
        part.append(chunk)
    except StorageError as error:  # which speaks of the cache
        hint = "make room there, and run the same command again: it goes on with what has arrived"
        raise StorageError(error.problem, hint=hint) from error


def _is_here(store: Store, info: FileInfo) -> bool:
    return store.has_paths and info.size_bytes > 0 and store.bytes_to_fetch([info.name]) == 0


def _local_chunks(store: Store, name: str, start: int) -> Iterator[bytes]:
    with store.local_paths([name])[name].open("rb") as file:
        file.seek(start)
        while chunk := file.read(_COPY_BYTES):
            yield chunk


def _key(store: Store, info: FileInfo, version: str | None) -> str:
    # Where no version is known, nothing tells whether what an earlier fetch left is of the same one.
    text = json.dumps([str(store.uri), info.name, info.size_bytes, version or uuid.uuid4().hex])
    return hashlib.sha256(text.encode()).hexdigest()[:32]
