"""What an honest S3 server answers, as values that a fault can change before they are sent."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Literal
from urllib.parse import quote
from xml.sax.saxutils import escape

Ending = Literal["keep", "close", "reset", "stall"]
PAGE = 1000


@dataclass
class Request:
    """One request as it came, and what was sent for it.

    Attributes:
        method: `GET`, `HEAD`, `PUT`, `DELETE`, or `LIST` for ListObjectsV2.
        bucket: The bucket's name.
        key: The object's key, percent-escapes resolved; for `LIST` the prefix.
        query: The parameters after the question mark.
        headers: The headers, names in lower case.
        body: What came with a PUT.
        status: Of the answer; 0 while there is none.
        sent_bytes: How much of the body went out.
    """

    method: str
    bucket: str
    key: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes = b""
    status: int = 0
    sent_bytes: int = 0

    @property
    def range(self) -> str:
        """The Range header, or nothing."""
        return self.headers.get("range", "")

    @property
    def if_match(self) -> str:
        """The If-Match header, or nothing."""
        return self.headers.get("if-match", "")


@dataclass(frozen=True)
class Answer:
    """One answer, and how it is delivered.

    Attributes:
        status: The HTTP status.
        headers: Headers beside those that every answer has.
        body: The body; not sent for HEAD, whose Content-Length it gives.
        promised_bytes: Content-Length; None: chunked, without a length.
        sent_bytes: How much of the body is sent before `ending`; None: all of it.
        ending: What happens to the connection then.
        endless: After the body, zeros until the client goes away.
        silent: Not even a status line is sent before `ending`.
        pause_seconds: How long to wait after each 64 KiB.
    """

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    promised_bytes: int | None = -1
    sent_bytes: int | None = None
    ending: Ending = "keep"
    endless: bool = False
    silent: bool = False
    pause_seconds: float = 0.0

    def __post_init__(self) -> None:
        if self.promised_bytes == -1:
            object.__setattr__(self, "promised_bytes", len(self.body))

    def with_body(self, body: bytes) -> Answer:
        """Return the answer with another body, whose length is promised."""
        return replace(self, body=body, promised_bytes=len(body))


@dataclass(frozen=True)
class Stored:
    """One version of one object."""

    data: bytes
    etag: str

    @classmethod
    def of(cls, data: bytes) -> Stored:
        """Return a version with the ETag that S3 gives it."""
        return cls(data, f'"{hashlib.md5(data, usedforsecurity=False).hexdigest()}"')


def object_answer(request: Request, stored: Stored) -> Answer:
    """Answer GET or HEAD: whole, a range, or why not."""
    if request.if_match not in ("", "*", stored.etag):
        return error_answer(412, "PreconditionFailed", "At least one of the pre-conditions you specified did not hold")
    headers = {"ETag": stored.etag, "Accept-Ranges": "bytes", "Last-Modified": "Mon, 05 Jan 2026 10:00:00 GMT"}
    total = len(stored.data)
    if not request.range:
        return Answer(200, headers, stored.data)
    start, end = _range(request.range, total)
    if start >= end:
        return error_answer(416, "InvalidRange", "The requested range is not satisfiable")
    headers["Content-Range"] = f"bytes {start}-{end - 1}/{total}"
    return Answer(206, headers, stored.data[start:end])


def listing_answer(request: Request, objects: Mapping[str, Stored]) -> Answer:
    """Answer ListObjectsV2, in pages of at most 1000 keys."""
    prefix, after = request.key, request.query.get("continuation-token") or request.query.get("start-after", "")
    names = sorted(name for name in objects if name.startswith(prefix) and name > after)
    size = min(PAGE, int(request.query.get("max-keys", PAGE)))
    page = [(name, len(objects[name].data), objects[name].etag) for name in names[:size]]
    token = names[size - 1] if len(names) > size else ""
    return listing_page(request, page, token)


def listing_page(request: Request, page: Sequence[tuple[str, int, str]], token: str) -> Answer:
    """Answer with one page of a listing: any keys, sizes and ETags, and the token that leads on, if one does."""
    shown = quote if request.query.get("encoding-type") == "url" else xml_text
    contents = "".join(
        f"<Contents><Key>{shown(key)}</Key><LastModified>2026-01-05T10:00:00.000Z</LastModified>"
        f"<ETag>{xml_text(etag)}</ETag><Size>{size}</Size><StorageClass>STANDARD</StorageClass></Contents>"
        for key, size, etag in page
    )
    more = f"<NextContinuationToken>{xml_text(token)}</NextContinuationToken>" if token else ""
    return xml_answer(
        200,
        f'<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>{request.bucket}</Name>'
        f"<Prefix>{xml_text(request.key)}</Prefix><KeyCount>{len(page)}</KeyCount><MaxKeys>{PAGE}</MaxKeys>"
        f"<IsTruncated>{str(bool(token)).lower()}</IsTruncated>{more}{contents}</ListBucketResult>",
    )


def error_answer(status: int, code: str, message: str, **more: str) -> Answer:
    """Answer with an error as S3 writes it; `more` are further elements of its XML."""
    elements = {"Code": code, "Message": message, **more, "RequestId": "4442587FB7D0A2F9"}
    text = "".join(f"<{name}>{xml_text(value)}</{name}>" for name, value in elements.items())
    return xml_answer(status, f"<Error>{text}</Error>")


def xml_answer(status: int, document: str) -> Answer:
    """Answer with an XML document."""
    declared = f'<?xml version="1.0" encoding="UTF-8"?>\n{document}'
    return Answer(status, {"Content-Type": "application/xml"}, declared.encode())


def xml_text(text: str) -> str:
    """Escape a text for XML; control characters become references, as S3 writes them."""
    return re.sub(r"[\x00-\x1f\x7f]", lambda match: f"&#{ord(match[0])};", escape(text, {'"': "&quot;"}))


def amz_time(moment: datetime) -> str:
    """Return a time as requests are signed with it: `20260105T100000Z`."""
    return moment.strftime("%Y%m%dT%H%M%SZ")


def _range(header: str, total: int) -> tuple[int, int]:
    first, _, last = header.removeprefix("bytes=").partition("-")
    if not first:
        return max(0, total - int(last)), total
    return int(first), min(total, int(last) + 1) if last else total
