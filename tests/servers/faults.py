"""What can go wrong with one answer: each function returns a fault for `FaultyServer.fault`."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from dataclasses import replace

from servers.answers import Answer, Ending, Request, Stored, error_answer
from servers.faulty import Fault, FaultyServer

_MESSAGES = {
    "AccessDenied": "Access Denied",
    "InvalidAccessKeyId": "The AWS Access Key Id you provided does not exist in our records.",
    "ExpiredToken": "The provided token has expired.",
    "SignatureDoesNotMatch": (
        "The request signature we calculated does not match the signature you provided. "
        "Check your key and signing method."
    ),
    "SlowDown": "Please reduce your request rate.",
    "InternalError": "We encountered an internal error. Please try again.",
    "TooManyRequests": "Too many requests.",
}


def reset(after: int = 0) -> Fault:
    """The connection is reset after so many bytes of the body."""
    return _cut(after, "reset")


def truncated(after: int = 0) -> Fault:
    """The connection ends in order after so many bytes of the body, fewer than promised."""
    return _cut(after, "close")


def stalled(after: int = 0) -> Fault:
    """After so many bytes of the body nothing comes any more, and the connection stays open."""
    return _cut(after, "stall")


def slow(pause_seconds: float) -> Fault:
    """An honest answer that takes its time: a pause after each 64 KiB."""
    return lambda _, answer: replace(answer, pause_seconds=pause_seconds)


def unanswered() -> Fault:
    """Not even a status line comes, and the connection stays open."""
    return lambda _, answer: replace(answer, silent=True, ending="stall")


def hung_up() -> Fault:
    """The connection is reset instead of an answer."""
    return lambda _, answer: replace(answer, silent=True, ending="reset")


def overlong(extra: int) -> Fault:
    """So many bytes too many come: promised where a range was asked for, and unannounced after a whole object."""

    def fault(request: Request, answer: Answer) -> Answer:
        body = answer.body + b"x" * extra
        return answer.with_body(body) if request.range else replace(answer, body=body)

    return fault


def endless() -> Fault:
    """The body has no length, and never ends."""
    return lambda _, answer: replace(answer, promised_bytes=None, endless=True)


def status(code: int, name: str) -> Fault:
    """An error of S3, such as `status(503, "SlowDown")`."""
    return lambda *_: error_answer(code, name, _MESSAGES[name])


def denied(name: str) -> Fault:
    """A 403 of one kind, with the XML of S3, which repeats the client's key, signature and token."""

    def fault(request: Request, answer: Answer) -> Answer:
        return error_answer(403, name, _MESSAGES[name], **_repeated(name, request))

    return fault


def spoken(code: int, message: str) -> Fault:
    """A refusal with a message of one's own; `{token}` and `{authorization}` in it are those of the request."""

    def fault(request: Request, answer: Answer) -> Answer:
        headers = request.headers
        token, authorization = headers.get("x-amz-security-token", ""), headers.get("authorization", "")
        return error_answer(code, "AccessDenied", message.format(token=token, authorization=authorization))

    return fault


def redirected(endpoint: str) -> Fault:
    """A 307 to the same key on another server."""

    def fault(request: Request, answer: Answer) -> Answer:
        where = f"{endpoint}/{request.bucket}/{request.key}"
        return replace(error_answer(307, "TemporaryRedirect", "Please re-send."), headers={"Location": where})

    return fault


def signed_for_another_region(region: str) -> Fault:
    """A 400: the request was signed for the wrong region, and the right one is told."""
    message = f"The authorization header is malformed; the region 'us-east-1' is wrong; expecting '{region}'"
    return lambda *_: error_answer(400, "AuthorizationHeaderMalformed", message, Region=region)


def wrong_region(region: str) -> Fault:
    """A 301: the bucket is in another region, which only a header names."""
    message = "The bucket you are attempting to access must be addressed using the specified endpoint."

    def fault(request: Request, answer: Answer) -> Answer:
        moved = error_answer(301, "PermanentRedirect", message, Bucket=request.bucket)
        return replace(moved, headers={**moved.headers, "x-amz-bucket-region": region})

    return fault


def whole_object(server: FaultyServer) -> Fault:
    """A 200 with the whole object where a range was asked for."""

    def fault(request: Request, answer: Answer) -> Answer:
        headers = {name: value for name, value in answer.headers.items() if name != "Content-Range"}
        return replace(answer, status=200, headers=headers).with_body(server.objects(request.bucket)[request.key])

    return fault


def etag_ignored(server: FaultyServer, data: bytes) -> Fault:
    """The object is another, and the server does not care about If-Match: it answers with the other one's ETag."""
    stored = Stored.of(data)

    def fault(request: Request, answer: Answer) -> Answer:
        first, _, last = request.range.removeprefix("bytes=").partition("-")
        start, end = (int(first), int(last) + 1) if request.range else (0, len(data))
        headers = {**answer.headers, "ETag": stored.etag}
        if request.range:
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{len(data)}"
        return replace(answer, headers=headers).with_body(data[start:end])

    return fault


def precondition_failed() -> Fault:
    """A 412, whatever was asked for."""
    message = "At least one of the pre-conditions you specified did not hold"
    return lambda *_: error_answer(412, "PreconditionFailed", message, Condition="If-Match")


def then(act: Callable[[], object]) -> Fault:
    """An honest answer, and before the client has it something happens, such as that an object is replaced."""

    # Not once it is sent: the client might be further by then, or not.
    def fault(_: Request, answer: Answer) -> Answer:
        act()
        return answer

    return fault


def bit_flipped(position: int, *, times: float = float("inf")) -> Fault:
    """One bit of the object is another, under the same ETag, in the first `times` answers that have byte `position`."""
    flipped = itertools.count(1)

    def fault(request: Request, answer: Answer) -> Answer:
        offset = position - int(request.range.removeprefix("bytes=").partition("-")[0] or 0)
        if not 0 <= offset < len(answer.body) or next(flipped) > times:
            return answer
        body = bytearray(answer.body)
        body[offset] ^= 1
        return answer.with_body(bytes(body))

    return fault


def shifted(by: int) -> Fault:
    """A 206 with another range than was asked for, which the Content-Range says."""

    def fault(request: Request, answer: Answer) -> Answer:
        span, total = answer.headers["Content-Range"].removeprefix("bytes ").split("/")
        first, last = map(int, span.split("-"))
        headers = {**answer.headers, "Content-Range": f"bytes {first + by}-{last + by}/{total}"}
        return replace(answer, headers=headers).with_body(answer.body[by:] + b"x" * by)

    return fault


def without_etag() -> Fault:
    """An honest answer, or listing, without ETags."""

    def fault(request: Request, answer: Answer) -> Answer:
        headers = {name: value for name, value in answer.headers.items() if name != "ETag"}
        is_listing = request.method == "LIST"
        body = re.sub(rb"<ETag>.*?</ETag>", b"", answer.body) if is_listing else answer.body
        return replace(answer, headers=headers).with_body(body)

    return fault


def page_of_html(code: int = 200) -> Fault:
    """The page of a captive portal or proxy, in place of what was asked for."""
    page = b"<!DOCTYPE html>\n<html><head><title>Sign in</title></head><body>Please sign in.</body></html>\n"
    return lambda *_: Answer(code, {"Content-Type": "text/html"}, page)


def _cut(after: int, ending: Ending) -> Fault:
    return lambda _, answer: replace(answer, sent_bytes=after, ending=ending)


def _repeated(name: str, request: Request) -> dict[str, str]:
    """What S3 repeats of a request in its refusal."""
    authorization = request.headers.get("authorization", "")
    key_id = authorization.partition("Credential=")[2].partition("/")[0]
    if name == "SignatureDoesNotMatch":
        return {"AWSAccessKeyId": key_id, "SignatureProvided": authorization.partition("Signature=")[2]}
    if name == "InvalidAccessKeyId":
        return {"AWSAccessKeyId": key_id}
    if name == "ExpiredToken":
        return {"Token-0": request.headers.get("x-amz-security-token", "")}
    return {}
