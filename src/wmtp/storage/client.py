"""Requests to one bucket: every failure in our own words, every body exactly as long as promised."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from threading import Lock
from typing import Any, TypeVar

from typing_extensions import Buffer

from wmtp.errors import ChangedError, StorageError, WmtpError
from wmtp.storage.credentials import open_obstore, service_of, without_secrets
from wmtp.storage.requests.aws import bucket_region
from wmtp.storage.requests.failures import Failure, expected_errors, read_failure, storage_error
from wmtp.storage.requests.listing import list_objects, without_markers
from wmtp.storage.requests.processes import refuse_forked
from wmtp.storage.requests.retries import Patience, transfer_timeout
from wmtp.storage.requests.sources import size_of
from wmtp.storage.requests.versions import ObjectInfo, exact_body, info_of
from wmtp.storage.uri import ModelURI
from wmtp.untrusted import plain, show

__all__ = ["ObjectClient", "ObjectInfo", "transfer_timeout"]

_T = TypeVar("_T")
_PROGRESS_BYTES = 1 << 16
_PART_BYTES = 8 << 20
_MAX_PARTS = 9_000  # S3 takes 10,000
_PARTS_AT_ONCE = 4


class ObjectClient:
    """Requests to one bucket, from any thread.

    What a server does wrong for a moment is tried again for `transfer_timeout()` seconds; everything else, and whatever
    lasts longer, is an error that names bucket and key, what happened, and where the credentials came from.

    Args:
        uri: An address in the bucket. Nothing is asked, and no credentials are looked for, before the first request.
    """

    def __init__(self, uri: ModelURI) -> None:
        self.uri = ModelURI(uri.scheme, uri.location, "")
        self._opened: dict[bool, tuple[Any, str]] = {}
        self._opening = Lock()

    def list(self, prefix: str, *, max_objects: int) -> list[ObjectInfo]:
        """Return every object below `prefix/`, at any depth, sorted by key, without directory markers.

        Args:
            prefix: Without a slash at its end; empty for the whole bucket. Its siblings (`prefix-old`) do not count.
            max_objects: More than so many are an error.

        Raises:
            NotFoundError: If there is no such bucket. A prefix without objects gives an empty list.
            StorageError: If there are too many, the listing has no end, or it has a key that is no path.
        """
        where = self._where(prefix)
        found = self._persist(prefix, lambda: list_objects(self._store, prefix, max_objects=max_objects, where=where))
        return sorted(without_markers(found, self.head), key=lambda info: info.key)

    def head(self, key: str) -> ObjectInfo:
        """Return what is known of an object without reading it.

        Raises:
            NotFoundError: If there is no such object, or no such bucket.
        """
        import obstore

        return self._persist(key, lambda: info_of(obstore.head(self._store, key), key), is_head=True)

    def get(self, key: str, *, max_bytes: int, etag: str | None = None) -> tuple[bytes, ObjectInfo]:
        """Return a small object whole, and which version that was.

        Args:
            key: Its key.
            max_bytes: A larger one is refused before its body is read.
            etag: The version that it has to be; None: any.

        Raises:
            ChangedError: If it is another version.
            NotFoundError: If there is no such object.
            StorageError: If it is too large, or cannot be had.
        """
        return self._persist(key, lambda: self._whole(key, max_bytes, etag), pinned=f"ETag {show(etag)}")

    def stream(self, info: ObjectInfo, start: int, end: int) -> Iterator[Buffer]:
        """Yield the bytes [start, end) of exactly that version as they arrive, never more.

        What breaks off is gone on with from where it was.

        Raises:
            ChangedError: If the object is another version by now.
            NotFoundError: If it is gone.
            StorageError: If not all bytes can be had; it says how many came.
        """
        patience, position = Patience(self._where(info.key)), start
        while position < end:
            began = position
            try:
                for chunk in self._body(info, position, end):
                    position += len(chunk)
                    yield chunk
            except expected_errors() as error:
                failure = _failure(error)
                if position - began >= _PROGRESS_BYTES:  # a byte at a time is no progress
                    patience.progressed()
                had = f"{position - start:,} of {end - start:,} bytes had come"
                self._wait(patience, info.key, failure, pinned=str(info), had=had)

    def put(self, key: str, source: Path | bytes) -> ObjectInfo:
        """Write an object, in parts if it is large, and return what stands there then.

        Raises:
            StorageError: If it cannot be written, or has another size afterwards.
        """
        import obstore

        store = self._open(for_writing=True)[0]
        size = len(source) if isinstance(source, bytes) else size_of(source)
        try:
            part = max(_PART_BYTES, -(-size // _MAX_PARTS))
            obstore.put(store, key, source, chunk_size=part, max_concurrency=_PARTS_AT_ONCE)
        except expected_errors() as error:
            raise self._error(key, _failure(error)) from None
        written = self.head(key)
        if written.size_bytes != size:
            raise StorageError(
                f"{self._where(key)}: {written.size_bytes:,} bytes after {size:,} were written",
                hint="somebody else wrote there, or changed the file meanwhile; write it again",
            )
        return written

    def delete(self, key: str) -> None:
        """Remove an object; it is fine if none is there."""
        import obstore

        def remove() -> None:
            with suppress(FileNotFoundError):
                try:
                    obstore.delete(self._store, key)
                except TypeError:  # so only here; everywhere else a key that is no path is a ValueError
                    raise ValueError("could not parse path") from None

        self._persist(key, remove)

    def version_of(self, info: ObjectInfo) -> str:
        """Return what tells this content from any other that was ever seen under this address; empty if nothing does.

        A bucket of the same name elsewhere may well give the same ETag to something else.
        """
        if info.etag is None or self.uri.scheme == "memory":  # whose ETags count from 0 in each process
            return ""
        return f"{info.etag} {service_of(self._store)}"

    @property
    def _store(self) -> Any:
        return self._open(for_writing=False)[0]

    def _open(self, *, for_writing: bool) -> tuple[Any, str]:
        refuse_forked()
        with self._opening:
            if for_writing not in self._opened:
                self._opened[for_writing] = open_obstore(self.uri, for_writing=for_writing)
            return self._opened[for_writing]

    def _whole(self, key: str, max_bytes: int, etag: str | None) -> tuple[bytes, ObjectInfo]:
        import obstore

        result = obstore.get(self._store, key, options={"if_match": etag} if etag else None)
        info = info_of(result.meta, key)
        if etag is not None and info.etag != etag:
            raise self._changed(key, f"ETag {show(etag)}", info)
        if info.size_bytes > max_bytes:
            raise StorageError(
                f"{self._where(key)}: {info.size_bytes:,} bytes, more than the {max_bytes:,} allowed for such a file",
                hint="check that this is the file you meant; a file of this kind is small",
            )
        return b"".join(exact_body(result, info.size_bytes)), info

    def _body(self, info: ObjectInfo, start: int, end: int) -> Iterator[bytes]:
        import obstore

        options: Any = {"range": (start, end), **({"if_match": info.etag} if info.etag else {})}
        result = obstore.get(self._store, info.key, options=options)
        now = info_of(result.meta, info.key)
        if not info.is_version_of(now):
            raise self._changed(info.key, str(info), now)  # not every server heeds If-Match
        return exact_body(result, end - start)

    def _persist(self, key: str, ask: Callable[[], _T], *, is_head: bool = False, pinned: str = "") -> _T:
        patience = Patience(self._where(key))
        while True:
            try:
                return ask()
            except expected_errors() as error:
                failure = _failure(error)
            self._wait(patience, key, self._with_reason(key, failure) if is_head else failure, pinned=pinned)

    def _wait(self, patience: Patience, key: str, failure: Failure, *, pinned: str, had: str = "") -> None:
        if failure.is_changed:
            raise self._changed(key, pinned, self.head(key)) from None
        if failure.is_transient and patience.wait(failure.cause):
            return
        then = ", ".join(filter(None, (patience.spent if failure.is_transient else "", had)))
        raise self._error(key, failure, then) from None

    def _with_reason(self, key: str, failure: Failure) -> Failure:
        """Learn from a GET what the answer to a HEAD, which has no body, cannot say."""
        import obstore

        if failure.code or failure.is_transient or self.uri.scheme == "memory":
            return failure
        try:
            obstore.get(self._store, key, options={"range": (0, 1)})
        except expected_errors() as error:
            told = _failure(error)
            return told if told.code and not told.is_changed else failure
        return failure

    def _error(self, key: str, failure: Failure, then: str = "") -> StorageError:
        store, credentials = self._open(for_writing=False)
        if failure.region == "" and self.uri.scheme == "s3":  # obstore keeps to itself what the server said
            failure = replace(failure, region=bucket_region(store.config["endpoint"], self.uri.location))
        failure = replace(failure, cause=without_secrets(failure.cause, store))
        return storage_error(failure, self._where(key), credentials=credentials, then=then)

    def _changed(self, key: str, was: str, now: ObjectInfo) -> ChangedError:
        return ChangedError(
            f"{self._where(key)}: it changed meanwhile: it was {was}, and is {now}",
            hint="somebody writes there; run the command again once they are done",
        )

    def _where(self, key: str) -> str:
        return f"{self.uri}/{plain(key)}" if key else str(self.uri)


def _failure(error: Exception) -> Failure:
    if isinstance(error, WmtpError):  # ours already
        raise error
    return read_failure(error)
