"""What a store answered when it failed, in our own words.

obstore tells of failures in one text: a sentence with the server's words in it, then the error's structure with those
words escaped. Only the structure is read, and only facts are taken from it: no header, address or signature gets out.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from html import unescape

from wmtp.errors import NotFoundError, StorageError
from wmtp.storage.requests.versions import BodyFault
from wmtp.untrusted import plain

_STRUCTURE = "\n\nDebug source:\n"
_STATUS = re.compile(r"\n\s*(?:inner|source): Status \{\n\s+status: (\d{3}),\n\s+body: Some\(\n\s+\"(.*)")
_MAX_BODY_CHARACTERS = 1 << 16
_TRANSIENT = (408, 429, 500, 502, 503, 504, 509, 520, 521, 522, 523, 524)
_AUTHENTICATION = (401, 403)
# What may be a secret that the server repeats: values in a query, and runs as long as a secret key or a token.
_SECRET = re.compile(r"(?<=[?&])[\w.-]+=[^\s&]*|[A-Za-z0-9+/=]{40,}|%[0-9A-Fa-f]{2}[A-Za-z0-9%+/=]{20,}")

# Parts of the structure, with what they mean and whether another attempt can help; the first that occurs counts.
_STRUCTURES = (
    ("BareRedirect", "the server says that the bucket is elsewhere, in another region", False),
    ("NotPartial", "the server sent a whole answer where a range of bytes was asked for", False),
    ("UnexpectedRange", "the server sent another range of bytes than was asked for", False),
    ("ParseContentRange", "the server sent a Content-Range that cannot be read", False),
    ("NoContentRange", "the server sent no Content-Range", False),
    ("MissingContentLength", "the server sent a body without saying how long it is", False),
    ("MissingEtag", "the server sent no ETag", False),
    ("InvalidListResponse", "the server's listing cannot be read", False),
    ("BadScheme", "plain http is not allowed here", False),
    ("InvalidCertificate", "the server's certificate is not valid or not trusted", False),
    ("InvalidContentType", "the server does not speak TLS, though its address says https", False),
    ("credential provider", "the credentials could not be refreshed", False),
    ('"dns error"', "its host name cannot be resolved", True),
    ("ConnectionRefused", "the connection was refused", True),
    ("kind: Timeout", "the server sent nothing for too long", True),
    ("IncompleteBody", "the connection closed before all bytes had come", True),
    ("ConnectionReset", "the connection was reset", True),
    ("HttpError", "the connection failed", True),
)

_REASONS = {
    "InvalidAccessKeyId": "the server does not know the access key",
    "SignatureDoesNotMatch": "the secret key is wrong (the signature does not match)",
    "AuthenticationFailed": "the server does not accept the credentials",
    "ExpiredToken": "the credentials have expired",
    "ExpiredTokenException": "the credentials have expired",
    "TokenRefreshRequired": "the credentials have expired",
    "InvalidToken": "the session token is not valid",
    "RequestTimeTooSkewed": "the clocks of this machine and of the server differ too much",
    "RequestExpired": "the clocks of this machine and of the server differ too much",
    "RequestInTheFuture": "the clocks of this machine and of the server differ too much",
}
_REGION_CODES = ("AuthorizationHeaderMalformed", "PermanentRedirect", "TemporaryRedirect", "IllegalLocationConstraint")
_BUCKET_CODES = ("NoSuchBucket", "ContainerNotFound")


@dataclass(frozen=True)
class Failure:
    """Why a request failed.

    Attributes:
        status: The server's HTTP status; None when there was no answer, or no HTTP.
        code: What the server calls it, such as `SlowDown`; empty when it said nothing.
        cause: All of it in words, safe to print.
        is_missing: Nothing stands there.
        is_changed: The object is not the version that was asked for.
        is_refused: The credentials, or the lack of them, are why.
        is_transient: The same request may succeed a little later.
        region: The bucket's, when the server said that it is another; empty if it did not say which.
        is_key: A key is no path, so that no request can name it.
    """

    status: int | None = None
    code: str = ""
    cause: str = ""
    is_missing: bool = False
    is_changed: bool = False
    is_refused: bool = False
    is_transient: bool = False
    region: str | None = None
    is_key: bool = False


def expected_errors() -> tuple[type[Exception], ...]:
    """Return what obstore's functions raise."""
    from obstore.exceptions import BaseError

    return BaseError, OSError, ValueError


def read_failure(error: Exception) -> Failure:
    """Take the facts from an error of obstore."""
    structure = str(error).rpartition(_STRUCTURE)[2]
    if match := _STATUS.search(structure):
        return _answered(int(match[1]), match[2][:_MAX_BODY_CHARACTERS])
    return next(filter(None, (read(error, structure) for read in _READERS)))


def _of_body(error: Exception, structure: str) -> Failure | None:  # noqa: ARG001
    return Failure(cause=str(error), is_transient=True) if isinstance(error, BodyFault) else None


def _of_version(error: Exception, structure: str) -> Failure | None:
    if isinstance(error, FileNotFoundError):
        return Failure(cause="no such object", is_missing=True)
    is_past_end = "InvalidRange" in structure or "InvalidGetRange" in structure
    if type(error).__name__ == "PreconditionError" or is_past_end:
        return Failure(cause="the object is another version now", is_changed=True)
    return None


def _of_system(error: Exception, structure: str) -> Failure | None:  # noqa: ARG001
    if isinstance(error, TimeoutError):
        return Failure(cause="what the server sends has no end")
    return Failure(cause=plain(error.strerror)) if isinstance(error, OSError) and error.strerror else None


def _of_key(error: Exception, structure: str) -> Failure | None:
    if type(error).__name__ != "InvalidPathError" and "parse path" not in str(error):
        return None
    named = re.search(r'\n\s+path: "((?:[^"\\]|\\.)*)"', structure)
    key = f"the key {plain(named[1])}" if named else "this key"
    return Failure(cause=f"{key} is no path: it has an empty part, '.', '..' or a control character", is_key=True)


def storage_error(failure: Failure, where: str, *, credentials: str, then: str = "") -> StorageError:
    """Return the error for a failure.

    Args:
        failure: What happened.
        where: The address that was asked for, safe to print.
        credentials: Where they came from, in words.
        then: What else is to be said of it, such as how many bytes had come.
    """
    problem = f"{where}: {failure.cause}{then and f', {then}'}"
    bucket = "/".join(where.split("/")[:3])
    if failure.code in _BUCKET_CODES:
        return NotFoundError(f"{where}: there is no bucket {bucket}", hint="check the bucket's name and the endpoint")
    if failure.is_missing:
        return NotFoundError(problem, hint=f"see what is there: wmtp ls {where.rpartition('/')[0] or bucket}")
    if failure.region is not None:
        return StorageError(
            f"{where}: the bucket is in {_quoted_region(failure.region)}, not in the one that was asked",
            hint=f"set AWS_REGION={failure.region or '<region of the bucket>'}; AWS_ENDPOINT_URL must belong to it",
        )
    if failure.is_refused:
        return StorageError(f"{problem}; credentials: {credentials}", hint=_hint_for_refusal(failure, credentials))
    return StorageError(problem, hint=_hint_for(failure))


def _answered(status: int, body: str) -> Failure:
    code, message = _element("Code", body), _element("Message", body)
    spoken = f"{status}{code and f' {code}'}{message and f': {message}'}"
    region = _region(status, code, body)
    is_refused = region is None and (status in _AUTHENTICATION or code in _REASONS)
    return Failure(
        status,
        code,
        _refusal(code, spoken, body) if is_refused else _spoken(status, code, spoken),
        is_missing=status == 404,
        is_changed=status in (412, 416),
        is_refused=is_refused,
        is_transient=status in _TRANSIENT or code == "RequestTimeout",
        region=region,
    )


def _spoken(status: int, code: str, spoken: str) -> str:
    if status == 404 and code not in _BUCKET_CODES:
        return "no such object"
    return f"the server answered {spoken}"


def _refusal(code: str, spoken: str, body: str) -> str:
    reason = _REASONS.get(code, "access is denied")
    asked, server = _element("RequestTime", body), _element("ServerTime", body)
    times = f": this machine says {asked}, the server {server}" if asked and server else ""
    return f"{reason}{times} (the server answered {spoken})"


def _region(status: int, code: str, body: str) -> str | None:
    if code not in _REGION_CODES and status != 301:
        return None
    return _element("Region", body) or next(iter(re.findall(r"expecting '([a-z0-9-]+)'", body)), "")


def _of_connection(error: Exception, structure: str) -> Failure:
    name = type(error).__name__
    if "InvalidCertificate" in structure or "invalid peer certificate" in structure:
        structure = "InvalidCertificate"
    for part, cause, is_transient in _STRUCTURES:
        if part in structure:
            region = "" if part == "BareRedirect" else None
            is_refused = part == "credential provider"
            return Failure(cause=cause, is_transient=is_transient, is_refused=is_refused, region=region)
    return Failure(
        cause=f"the request failed ({name})", is_refused=name in ("PermissionDeniedError", "UnauthenticatedError")
    )


def _element(name: str, body: str) -> str:
    found = re.search(rf"<{name}>([^<]*)</{name}>", body)
    return plain(_SECRET.sub("[...]", unescape(found[1].replace('\\"', '"').replace("\\n", " ")))) if found else ""


def _quoted_region(region: str) -> str:
    return f"the region {region}" if region else "another region"


def _hint_for(failure: Failure) -> str:
    if failure.is_transient:
        return (
            "run the command again in a while; WMTP_TRANSFER_TIMEOUT sets for how many seconds requests are tried again"
        )
    if failure.is_key:
        return "rename or remove that object, or name a prefix that it is not below"
    if failure.status is not None:
        return "look the code up in the documentation of the store, or ask who runs it"
    return "check the address and the endpoint (AWS_ENDPOINT_URL), and any proxy in between"


def _hint_for_refusal(failure: Failure, credentials: str) -> str:
    if failure.code in ("RequestTimeTooSkewed", "RequestExpired", "RequestInTheFuture"):
        return "set this machine's clock, by NTP for instance"
    if credentials.startswith("none found"):
        return "give credentials in one of those places, or ask the owner of the bucket to make it public"
    if "expired" in failure.cause or "refreshed" in failure.cause:
        return f"renew the credentials (with 'aws sso login', for instance); they came from {credentials}"
    if failure.code in _REASONS:
        return f"correct the credentials; they came from {credentials}"
    return "ask the owner of the bucket for access (an object that is missing looks the same to who may not list)"


_READERS: tuple[Callable[[Exception, str], Failure | None], ...] = (
    _of_body,
    _of_version,
    _of_system,
    _of_key,
    _of_connection,
)
