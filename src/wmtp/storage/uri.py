"""Addresses of checkpoints, decided from the text alone, before any request."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from wmtp.errors import URIError
from wmtp.untrusted import did_you_mean, has_unprintable, relative_name_fault, show

_SCHEME = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]*):")
_FORMS = (
    "use /path, ./path, file:///path, s3://bucket/key, gs://bucket/key, az://container/key or hf://org/name@revision"
)
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}")
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
_CREDENTIALS = re.compile(r"(?!file:///)[a-z][a-z0-9+.-]*:/{0,2}(?:[^/]*@|.*:.*@)", re.IGNORECASE | re.DOTALL)


@dataclass(frozen=True)
class ModelURI:
    """Where one checkpoint, or a directory of checkpoints, stands.

    Attributes:
        scheme: `file`, `s3`, `gs`, `az`, `hf`, or `memory` (objects of this process, for tests).
        location: Bucket or container; `org/name` for `hf`; empty for `file`.
        path: Key or path inside it, without a trailing slash. For `file` the path as the operator wrote it.
        revision: Branch, tag or commit of an `hf` address; None: its default branch.
    """

    scheme: str
    location: str
    path: str
    revision: str | None = None

    def __str__(self) -> str:
        if self.scheme == "file":
            return self.path
        revision = f"@{self.revision}" if self.revision else ""
        return f"{self.scheme}://{self.location}{'/' if self.path else ''}{self.path}{revision}"

    def __truediv__(self, name: str) -> ModelURI:
        """Return the address of a file or directory below this one."""
        path = f"{self.path.rstrip('/')}/{name}" if self.path else name
        return ModelURI(self.scheme, self.location, path, self.revision)


def parse_uri(text: str | Path | ModelURI) -> ModelURI:
    """Return the address that a text means.

    Raises:
        URIError: If the text is empty, has an unknown scheme, control characters, or a query.
    """
    if isinstance(text, ModelURI):
        return text
    if isinstance(text, Path):
        return ModelURI("file", "", _printable(str(text)))
    if _CREDENTIALS.match(text):  # not shown: what stands there may be a secret
        hint = "write the address without them, and leave credentials to the environment or a profile"
        raise URIError(f"the {text.split(':')[0]}:// address has credentials in it", hint=hint)
    if not text:
        raise URIError("'' is not an address of a checkpoint", hint=_FORMS)
    match = _SCHEME.match(_printable(text))
    if match is None:
        return ModelURI("file", "", text.rstrip("/") or "/")
    scheme, rest = match.group(1), text[match.end() :]
    if scheme not in _PARSERS or not rest.startswith("//"):
        problem = f"lacks // after {scheme}:" if scheme in _PARSERS else f"has the unknown scheme {show(scheme)}"
        raise URIError(f"{show(text)} {problem}", hint=_FORMS + did_you_mean(scheme, _PARSERS))
    if mark := next((mark for mark in "?#" if mark in rest), None):
        # What follows is not shown: a query may be a signature.
        hint = "write the address without a query or fragment"
        raise URIError(f"{show(text.partition(mark)[0])} has a '{mark}' after it", hint)
    return _PARSERS[scheme](text, scheme, rest[2:].rstrip("/"))


def _printable(text: str) -> str:
    if has_unprintable(text):
        raise URIError(f"{show(text)} has a character in it that cannot be printed", hint=_FORMS)
    return text


def _parse_file(text: str, scheme: str, rest: str) -> ModelURI:
    host, _, path = rest.partition("/")
    if host not in ("", "localhost"):
        raise URIError(f"{show(text)} names the host {show(host)}", hint="write file:///path, with three slashes")
    return ModelURI(scheme, "", _printable(unquote("/" + path)).rstrip("/") or "/")


def _parse_bucket(text: str, scheme: str, rest: str) -> ModelURI:
    bucket, _, key = rest.partition("/")
    if not _BUCKET.fullmatch(bucket):
        raise URIError(f"{show(text)} has no valid bucket name: {show(bucket)}", hint=f"write {scheme}://bucket/key")
    if key and (fault := relative_name_fault(key)):
        raise URIError(f"{show(text)}: the key {fault}", hint=f"write {scheme}://bucket/key with a plain key")
    return ModelURI(scheme, bucket, key)


def _parse_hub(text: str, scheme: str, rest: str) -> ModelURI:
    repository, at, revision = rest.partition("@")
    if not _REPOSITORY.fullmatch(repository) or (at and relative_name_fault(revision)):
        raise URIError(
            f"{show(text)} is not a repository on the Hub", hint="write hf://org/name or hf://org/name@revision"
        )
    return ModelURI(scheme, repository, "", revision or None)


_PARSERS = {"file": _parse_file, "hf": _parse_hub, **dict.fromkeys(("s3", "gs", "az", "memory"), _parse_bucket)}
