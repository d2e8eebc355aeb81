"""The files below a key prefix in an object store."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from typing_extensions import Buffer, override

from wmtp.errors import ChangedError, IntegrityError, NotFoundError, StorageError
from wmtp.manifest import sha256_bytes
from wmtp.storage.cache import Source, VerifiedCache
from wmtp.storage.client import ObjectClient, ObjectInfo
from wmtp.storage.local import reading
from wmtp.storage.order import in_order
from wmtp.storage.progress import transferring
from wmtp.storage.store import MAX_LISTED, FileInfo, Piece, Store
from wmtp.storage.transfer import MAX_FILES, OptimizedS3Transfer, num_connections
from wmtp.storage.uri import ModelURI
from wmtp.untrusted import MAX_LEVELS, first_few, relative_name_fault, show_all

_logger = logging.getLogger(__name__)


class ObjectStore(Store):
    """Objects whose keys begin with a prefix, in S3, Google Cloud Storage, Azure, or the memory of this process.

    The first look at an object pins its version: what is read later comes from that one, or is refused.

    Args:
        uri: Bucket and prefix.
        cache: Where files that are fetched whole are kept; None: nowhere.
        client: Makes the requests; one may serve many stores of a bucket.
    """

    def __init__(self, uri: ModelURI, *, cache: VerifiedCache | None, client: ObjectClient | None = None) -> None:
        self.uri, self.verified, self.directory, self.has_paths = uri, {}, None, cache is not None
        self._cache, self._client = cache, client or ObjectClient(uri)
        self._pinned: dict[str, ObjectInfo] = {}
        self._listed: list[FileInfo] | None = None
        self._expected: dict[str, str] = {}
        self._shown: dict[str, list[tuple[int, int, bytes]]] = {}

    @override
    def list_files(self) -> list[FileInfo]:
        if self._listed is None:
            found = self._client.list(self.uri.path, max_objects=MAX_LISTED)
            if not found:
                raise NotFoundError(
                    f"{self.uri}: nothing is stored below it", hint="see what is there with 'wmtp ls' of its parent"
                )
            self._listed = sorted(self._named(found), key=lambda info: info.name)
        return self._listed

    @override
    def stat(self, name: str) -> FileInfo:
        info = self._info(name)
        return FileInfo(name, info.size_bytes, self._client.version_of(info))

    @override
    def read_bytes(self, name: str, *, max_bytes: int) -> bytes:
        self.check_name(name)
        pinned = self._pinned.get(name)
        if pinned is None and self._listed is not None:
            self._info(name)  # says that it is not there
        if pinned and pinned.size_bytes <= max_bytes and (path := self._cached(name, pinned)):
            return _part_of(path, 0, pinned.size_bytes)
        data, info = self._client.get(self._key(name), max_bytes=max_bytes, etag=pinned.etag if pinned else None)
        self._pin(name, info)
        self.confirm(name, sha256_bytes(data))
        return data

    @override
    def read_range(self, name: str, start: int, length: int) -> bytes:
        info = self._info(name)
        if path := self._cached(name, info):
            return _part_of(path, start, length)
        data = b"".join(self._client.stream(info, start, start + length))
        self._shown.setdefault(name, []).append((start, length, hashlib.sha256(data).digest()))
        return data

    @override
    def read_ranges(self, ranges: Sequence[tuple[str, int, int]]) -> list[bytes]:
        with ThreadPoolExecutor(num_connections()) as pool:
            return list(pool.map(lambda wanted: self.read_range(*wanted), ranges))

    @override
    def local_paths(self, names: Iterable[str]) -> dict[str, Path]:
        if self._cache is None:
            raise StorageError(
                f"{self.uri}: its files have no path on this machine, as nothing may be kept here",
                hint="leave the cache on: without cache=False, or --no-cache",
            )
        infos = {name: self._info(name) for name in names}
        paths = {name: self._cached(name, info) for name, info in infos.items()}
        missing = sorted((name for name, path in paths.items() if path is None), key=lambda n: -infos[n].size_bytes)
        fetched = self._fetch({name: infos[name] for name in missing}, self._cache) if missing else {}
        arrived = {name: path or fetched[name] for name, path in paths.items()}
        for name, path in arrived.items():
            self._check_arrived(name, path)
        return arrived

    @override
    def fill(self, pieces: Iterable[Piece]) -> Iterator[Piece]:
        with (
            transferring(str(self.uri)) as progress,
            OptimizedS3Transfer(self._client, progress) as transfer,
        ):

            def pinned() -> Iterator[tuple[ObjectInfo, Piece]]:
                for piece in pieces:
                    progress.expect(piece.name, len(piece.buffer))
                    yield self._info(piece.name), piece

            yield from transfer.fill(pinned())

    @override
    def stream(self, name: str, start: int = 0) -> Iterator[Buffer]:
        info = self._info(name)
        with (
            transferring(self.where(name), {name: info.size_bytes - start}) as progress,
            OptimizedS3Transfer(self._client, progress) as transfer,
        ):
            yield from transfer.stream(info, start)

    @override
    def child(self, name: str) -> ObjectStore:
        return ObjectStore(self.uri / name, cache=self._cache, client=self._client)

    @override
    def expect(self, digests: Mapping[str, str]) -> None:
        self._expected |= digests

    @override
    def expected(self, name: str) -> str | None:
        return f"sha256:{self._expected[name]}" if name in self._expected else None

    @override
    def bytes_to_fetch(self, names: Iterable[str]) -> int:
        infos = {name: self._info(name) for name in names}
        return sum(info.size_bytes for name, info in infos.items() if self._cached(name, info) is None)

    def put(self, name: str, source: Path | bytes) -> FileInfo:
        """Write a file; it is there as a whole or not at all."""
        self.check_name(name)
        written = self._client.put(self._key(name), source)
        self._pinned[name] = written
        self._listed = None
        return FileInfo(name, written.size_bytes, self._client.version_of(written))

    def delete(self, name: str) -> None:
        """Remove a file."""
        self._client.delete(self._key(name))
        self._pinned.pop(name, None)
        self._listed = None

    def _key(self, name: str) -> str:
        return (self.uri / name).path

    def _cached(self, name: str, info: ObjectInfo) -> Path | None:
        """The file in the cache, unless a digest was learnt since that it does not have."""
        path = self._cache.find(self._source(name, info)) if self._cache else None
        return path if path and path.name == self._expected.get(name, path.name) else None

    def _source(self, name: str, info: ObjectInfo) -> Source:
        return Source(str(self.uri), name, info.size_bytes, self._client.version_of(info))

    def _named(self, found: Sequence[ObjectInfo]) -> Iterator[FileInfo]:
        """Pin what a listing shows, under names relative to the prefix."""
        skip, ill_named = len(self.uri.path) + 1 if self.uri.path else 0, []
        for info in found:
            name = info.key[skip:]
            if relative_name_fault(name):
                ill_named.append(name)
            elif name.count("/") <= MAX_LEVELS:
                self._pin(name, info)
                yield FileInfo(name, info.size_bytes, self._client.version_of(info))
        visible = [name for name in ill_named if not any(part.startswith(".") for part in name.split("/"))]
        if visible:
            _logger.warning("%s: left out, for their names: %s", self.uri, ", ".join(first_few(show_all(visible))))

    def _info(self, name: str) -> ObjectInfo:
        self.check_name(name)
        if name not in self._pinned:
            self.list_files()
        if name not in self._pinned:
            raise NotFoundError(f"{self.where(name)}: no such object", hint=f"see what is there: wmtp ls {self.uri}")
        return self._pinned[name]

    def _pin(self, name: str, info: ObjectInfo) -> None:
        known = self._pinned.setdefault(name, info)
        if not known.is_version_of(info):
            raise ChangedError(
                f"{self.where(name)}: changed while it was being read, from {known} to {info}",
                hint="wait until nobody writes to it, and try again",
            )

    def _fetch(self, infos: Mapping[str, ObjectInfo], cache: VerifiedCache) -> dict[str, Path]:
        sizes = {name: info.size_bytes for name, info in infos.items()}
        cache.make_room(str(self.uri), sum(sizes.values()))
        with (
            ThreadPoolExecutor(MAX_FILES) as pool,
            transferring(str(self.uri), sizes) as progress,
            OptimizedS3Transfer(self._client, progress, num_files=len(infos)) as transfer,
        ):

            def receive(name: str) -> Path:
                info = infos[name]
                chunks = partial(transfer.stream, info)
                return cache.receive(self._source(name, info), chunks, sha256=self._expected.get(name))

            return dict(zip(infos, in_order(pool, receive, infos, ahead=len(infos)), strict=True))

    def _check_arrived(self, name: str, path: Path) -> None:
        """Raise IntegrityError unless a file has the digest it must have, and says what parts of it said before."""
        self.confirm(name, f"sha256:{path.name}")
        for start, length, digest in self._shown.pop(name, []):
            if hashlib.sha256(_part_of(path, start, length)).digest() != digest:
                raise IntegrityError(
                    f"{self.where(name)}: bytes {start:,} to {start + length:,} are not what was read before",
                    hint="the server gives different bytes for one version of the object: do not trust it",
                )


def _part_of(path: Path, start: int, length: int) -> bytes:
    with reading(path), path.open("rb") as file:
        file.seek(start)
        return file.read(length)
