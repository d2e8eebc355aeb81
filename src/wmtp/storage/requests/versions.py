"""One version of an object, and its bytes: exactly as many as it has."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from wmtp.untrusted import show

_CHUNK_BYTES = 1 << 16  # copying into larger chunks, and the caches that they overrun, halve the speed of hashing


@dataclass(frozen=True)
class ObjectInfo:
    """One version of one object.

    Attributes:
        key: Its full key in the bucket.
        size_bytes: Its size.
        etag: What tells its versions apart, as the server writes it, quotes included; None where a store has none.
        modified: Where there is no ETag: when it was written, to the second.
    """

    key: str
    size_bytes: int
    etag: str | None
    modified: str = ""

    def __str__(self) -> str:
        return f"{self.size_bytes:,} bytes {f'with ETag {show(self.etag)}' if self.etag else f'of {self.modified}'}"

    def is_version_of(self, other: ObjectInfo) -> bool:
        """Say whether both are one version of the object, as far as the server lets us know."""
        return (self.size_bytes, self.etag, self.modified) == (other.size_bytes, other.etag, other.modified)


class BodyFault(ValueError):
    """A body that is not as long as the server said, in words that are our own."""


def info_of(meta: Any, key: str | None = None) -> ObjectInfo:
    """Return a version as obstore tells of it; `key`: as it was asked for."""
    etag = meta["e_tag"]
    if etag and not etag.startswith(('"', "W/")):  # Azure's listings leave the quotes out, its other answers do not
        etag = f'"{etag}"'
    modified = "" if etag else meta["last_modified"].isoformat(timespec="seconds")  # listings are more exact
    return ObjectInfo(key or meta["path"], meta["size"], etag or None, modified)


def exact_body(result: Any, num_bytes: int) -> Iterator[bytes]:
    """Yield the body of an answer as it arrives; when it breaks off, what had come of the last chunk is lost.

    Raises:
        BodyFault: If it is shorter or longer; what is too much is not given out.
    """
    left = num_bytes
    for chunk in result.stream(min_chunk_size=_CHUNK_BYTES):
        left -= len(chunk)
        if left < 0:
            raise BodyFault("the server sent more bytes than it promised")
        yield chunk
    if left:
        raise BodyFault("the server sent fewer bytes than it promised")
