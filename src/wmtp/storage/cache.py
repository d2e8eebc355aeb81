"""Files fetched once: verified while they arrive, trusted while unchanged."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from typing_extensions import Buffer

from wmtp.errors import ChangedError, IntegrityError, StorageError, WmtpError
from wmtp.storage.cached.blobs import Blobs
from wmtp.storage.cached.kept import free_bytes, write_kept
from wmtp.storage.cached.locks import taking_turns
from wmtp.storage.cached.partial import PartFile
from wmtp.storage.cached.records import Entry, Records, Source
from wmtp.storage.cached.sweeping import part_sizes, sweep_parts
from wmtp.untrusted import plain

__all__ = ["Entry", "Source", "VerifiedCache"]

_DAY = 24 * 3600
_OLD_SECONDS = 7 * _DAY
_PATIENCE_SECONDS = 300.0  # longer than retries of a transfer go on without a byte
_PUBLISHING_SECONDS = 10.0
_SMALL_BYTES = 1 << 20  # room for records and directories
_TAG = b"Signature: 8a477f597d28d172789f06886806bc55\n# This directory is a cache of wmtp: backups may leave it out.\n"
_ELSEWHERE = "name a directory of yours in WMTP_CACHE, or keep nothing with --no-cache"

Chunks = Callable[[int], Iterator[Buffer]]


def default_root() -> Path:
    """Return the directory of the cache: `$WMTP_CACHE`, else `$XDG_CACHE_HOME/wmtp`, else `~/.cache/wmtp`.

    Raises:
        StorageError: If no such directory is known.
    """
    if named := os.environ.get("WMTP_CACHE"):
        return Path(named).absolute()
    configured = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if configured.is_absolute():  # a relative one would be looked up in the current directory, perhaps a checkpoint
        return configured / "wmtp"
    try:
        return Path.home() / ".cache" / "wmtp"
    except RuntimeError as error:
        raise StorageError("the cache has no place: this user has no home directory", hint=_ELSEWHERE) from error


class VerifiedCache:
    """Read-only files, each under its SHA-256, and which file of which checkpoint has which.

    Nothing is under its final name before it is complete and hashed. A file is hashed again when anything about it
    changed. Any number of processes may use one cache, and any of them may be killed.

    Args:
        root: Its directory; None: `default_root()`. Nothing is made or read before it is needed.

    Attributes:
        root: Its directory.
        blobs: The files.
        records: Which they are.
        parts: The directory of downloads in progress.
    """

    def __init__(self, root: Path | None = None) -> None:
        self.root = Path(root).absolute() if root is not None else default_root()
        self.blobs, self.records, self.parts = Blobs(self.root), Records(self.root), self.root / "parts"
        self._unversioned: dict[Source, str] = {}
        self._is_ready = False

    def find(self, source: Source) -> Path | None:
        """Return a complete, unchanged file of the cache, or None; also where the cache may only be read."""
        sha256 = self.records.find(source) if source.version else self._unversioned.get(source)
        if sha256 is None or not self.blobs.is_intact(sha256, source.size_bytes):
            return None
        self.records.touch(source)
        return self.blobs.path(sha256)

    def receive(self, source: Source, chunks: Chunks, *, sha256: str | None) -> Path:
        """Fetch a file into the cache, unless another process does so meanwhile, and return its path.

        Args:
            source: Which file.
            chunks: Gives its bytes from a position on; called again, with 0, when they turn out to be wrong.
            sha256: The digest that it must have, in hexadecimal digits; None: not known.

        Raises:
            StorageError: If the cache cannot be written, or the disk is full; needed and free bytes are named.
            IntegrityError: If the bytes are wrong twice; both digests are named.
        """
        with self._writing():
            self._prepare()
            turn = taking_turns(
                self.parts / f"{source.key}.lock",
                patience_seconds=_PATIENCE_SECONDS,
                progress=lambda: part_sizes(self.parts, source.key),
            )
            with turn:
                return self._known(source, sha256) or self._fetch(source, chunks, sha256)

    def entries(self) -> list[Entry]:
        """Return the files that are in the cache, as far as their records say; none is hashed."""
        found = self.records.all()
        return [entry for entry in found if self.blobs.has(entry.sha256, entry.source.size_bytes)]

    def make_room(self, what: str, num_bytes: int) -> None:
        """See to it that the disk has room, if need be by removing abandoned downloads.

        Args:
            what: What is to be fetched, for the error.
            num_bytes: How large it is.

        Raises:
            StorageError: If it does not fit; needed and free bytes are named.
        """
        with self._writing():
            self._prepare()
            needed = num_bytes + _SMALL_BYTES
            if free_bytes(self.parts) >= needed:
                return
            sweep_parts(self.parts, older_than_seconds=0)
            free = free_bytes(self.parts)
        if free < needed:
            raise StorageError(
                f"{self.root}: no room for {what}: {needed:,} bytes are needed, {free:,} are free",
                hint="make room, as with 'wmtp cache prune', name another directory in WMTP_CACHE, or use --no-cache",
            )

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Let one process at a time say which blobs are needed, or remove those that are not."""
        with taking_turns(self.parts / "changes.lock", patience_seconds=_PUBLISHING_SECONDS):
            yield

    def _prepare(self) -> None:
        if self._is_ready:
            return
        for directory in (self.blobs.directory, self.blobs.receipts, self.records.directory, self.parts):
            directory.mkdir(parents=True, exist_ok=True)
        tag = self.root / "CACHEDIR.TAG"
        if not tag.exists():
            write_kept(tag, _TAG, self.parts)
        sweep_parts(self.parts, older_than_seconds=_OLD_SECONDS)
        self._is_ready = True

    def _known(self, source: Source, sha256: str | None) -> Path | None:
        """What another process fetched while this one waited, or what another checkpoint has as well."""
        if (path := self.find(source)) and sha256 in (None, path.name):
            return path
        if sha256 is None:
            return None
        with self.changing():
            if not self.blobs.is_intact(sha256, source.size_bytes):
                return None
            with suppress(OSError):  # in a cache that may only be read it is good as it is
                self._remember(source, sha256)
        return self.blobs.path(sha256)

    def _fetch(self, source: Source, chunks: Chunks, sha256: str | None) -> Path:
        self.make_room(_where(source), source.size_bytes)
        part = PartFile(self.parts, source.key, source.size_bytes, adopt=bool(source.version))
        try:
            if fault := _fill(part, source, chunks, sha256):
                part.discard()
                part = PartFile(self.parts, source.key, source.size_bytes, adopt=False)
                fault = _fill(part, source, chunks, sha256)
            if fault:
                part.discard()
                raise _wrong(source, fault)
            with self.changing():
                self._remember(source, part.sha256())
                return self.blobs.publish(part)
        except OSError as error:
            # A broken connection can be gone on from; another version and a full disk cannot.
            if isinstance(error, ChangedError) or not isinstance(error, WmtpError):
                part.discard()
            raise
        finally:
            part.close()

    def _remember(self, source: Source, sha256: str) -> None:
        self._unversioned[source] = sha256
        # Before the blob has its name: a blob that no record needs may be swept.
        self.records.write(source, sha256)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except WmtpError:
            raise
        except OSError as error:
            raise StorageError(
                f"{self.root}: the cache cannot be written: {error.filename or 'there'}: {error.strerror}",
                hint=_ELSEWHERE,
            ) from error


def _fill(part: PartFile, source: Source, chunks: Chunks, sha256: str | None) -> str | None:
    """Append what is missing; says what is wrong with the whole, or None when nothing is."""
    stream = chunks(part.size) if part.size < source.size_bytes else iter(())
    try:
        for chunk in stream:
            if part.size + memoryview(chunk).nbytes > source.size_bytes:
                return f"more came than the {source.size_bytes:,} bytes that it has"
            part.append(chunk)
    finally:
        if close := getattr(stream, "close", None):
            close()
    if part.size != source.size_bytes:
        return f"only {part.size:,} of its {source.size_bytes:,} bytes came"
    found = part.sha256()
    return None if sha256 in (None, found) else f"it has sha256:{found}, sha256:{sha256} is expected"


def _wrong(source: Source, fault: str) -> IntegrityError:
    return IntegrityError(
        f"{_where(source)}: fetched twice, and {fault}",
        hint="fetch it from where you trust it, or mend the digest that is expected",
    )


def _where(source: Source) -> str:
    return f"{plain(source.uri)}/{plain(source.name)}"
