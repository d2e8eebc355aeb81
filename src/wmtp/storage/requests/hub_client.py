"""Requests to one repository of the Hugging Face Hub, and what the Hub answers in our own words."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import quote

from typing_extensions import Buffer, override

from wmtp.errors import NotFoundError, StorageError, URIError
from wmtp.storage.client import ObjectClient, ObjectInfo, transfer_timeout
from wmtp.storage.requests.hub_failures import OFFLINE_HINT, BrokenOff, asking
from wmtp.storage.store import MAX_LISTED
from wmtp.storage.uri import ModelURI
from wmtp.untrusted import plain

_COMMIT = re.compile(r"[0-9a-f]{40}")
_DIGEST = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_RETRIES = 2  # of a small request; a network that is down is said within seconds


@dataclass(frozen=True)
class HubFile:
    """A file of one commit.

    Attributes:
        info: Name and size; the ETag is the file's name in huggingface_hub's cache.
        blob: That name: the SHA-256 of a large file, the id that git gives to a small one.
        sha256: The digest that the Hub states; None for small files, which git stores itself.
    """

    info: ObjectInfo
    blob: str
    sha256: str | None


class HubClient(ObjectClient):
    """One commit of one repository, read as other clients read a bucket; nothing is written.

    Token, endpoint, time limits and proxies are those of huggingface_hub. The commit is resolved with the first
    request, so that all files are of one version.

    Args:
        uri: Repository and revision; None means its branch `main`.
    """

    def __init__(self, uri: ModelURI) -> None:
        self.uri = ModelURI(uri.scheme, uri.location, "", uri.revision)
        self.revision = uri.revision or "main"
        self._lock = threading.Lock()

    @property
    def files(self) -> dict[str, HubFile]:
        """The files of the commit by name."""
        return self._resolved[1]

    @property
    def commit(self) -> str:
        """The commit that the revision meant when it was first asked for."""
        return self._resolved[0]

    @override
    def list(self, prefix: str, *, max_objects: int) -> list[ObjectInfo]:
        begin = f"{prefix}/" if prefix else ""
        return [file.info for name, file in self.files.items() if name.startswith(begin)]

    @override
    def version_of(self, info: ObjectInfo) -> str:
        from huggingface_hub import constants

        return f"{info.etag} {constants.ENDPOINT}" if info.etag else ""

    @override
    def head(self, key: str) -> ObjectInfo:
        if key not in self.files:
            raise NotFoundError(f"{self._file(key)}: no such file", hint=f"see what is there: wmtp inspect {self.uri}")
        return self.files[key].info

    @override
    def get(self, key: str, *, max_bytes: int, etag: str | None = None) -> tuple[bytes, ObjectInfo]:
        info = self.head(key)
        if info.size_bytes > max_bytes:
            raise StorageError(
                f"{self._file(key)}: {info.size_bytes:,} bytes, more than the {max_bytes:,} allowed for such a file",
                hint="check that this is the file you meant; a file of this kind is small",
            )
        return b"".join(self.stream(info, 0, info.size_bytes)), info

    @override
    def stream(self, info: ObjectInfo, start: int, end: int) -> Iterator[Buffer]:
        deadline = time.monotonic() + (patience := transfer_timeout())
        while start < end:
            try:
                for chunk in self._answered(info, start, end):
                    start += len(chunk)
                    deadline = time.monotonic() + patience
                    yield chunk
            except BrokenOff as error:
                if time.monotonic() > deadline:
                    raise StorageError(
                        f"{self._file(info.key)}: {end - start:,} bytes are still missing: {error}", hint=OFFLINE_HINT
                    ) from None
                time.sleep(min(1.0, patience / 10))

    @override
    def put(self, key: str, source: Path | bytes) -> ObjectInfo:
        raise StorageError(
            f"{self._file(key)}: single files are not written to the Hub", hint="use 'wmtp push', or 'hf upload'"
        )

    @override
    def delete(self, key: str) -> None:
        raise StorageError(
            f"{self._file(key)}: single files are not removed from the Hub", hint="use 'hf repos delete-files'"
        )

    def download(self, name: str, bar: Any) -> Path:
        """Return the path in huggingface_hub's cache of a file of the commit, fetching it if it is not there.

        Args:
            name: The file.
            bar: A class like tqdm's, which is told of the bytes that arrive.
        """
        from huggingface_hub import hf_hub_download

        try:
            with asking(self._file(name)):
                return Path(hf_hub_download(self.uri.location, name, revision=self.commit, tqdm_class=bar))
        except RuntimeError:  # of hf_xet, for whatever goes wrong; the text has an address in it
            raise StorageError(
                f"{self._file(name)}: the Hub's storage does not give it to hf_xet",
                hint="check the network; HF_HUB_DISABLE_XET=1 fetches it over plain HTTP instead",
            ) from None

    def _file(self, name: str) -> str:
        return f"{self.uri}/{plain(name)}"

    @property
    def _resolved(self) -> tuple[str, dict[str, HubFile]]:
        with self._lock:  # two threads must not resolve a moving branch to two commits
            return self._resolution

    @cached_property
    def _resolution(self) -> tuple[str, dict[str, HubFile]]:
        from huggingface_hub import constants

        try:
            _utils().validate_repo_id(self.uri.location)
        except _utils().HFValidationError as error:
            raise URIError(f"{self.uri}: the Hub has no such names", hint="write hf://org/name") from error
        base = f"{constants.ENDPOINT}/api/models/{self.uri.location}"
        with asking(str(self.uri)):
            commit = _commit(_answer(f"{base}/revision/{quote(self.revision, safe='')}").json())
            entries = _tree(self.uri, f"{base}/tree/{commit}?recursive=true&expand=false")
            return commit, {file.info.key: file for file in _files(entries)}

    def _answered(self, info: ObjectInfo, start: int, end: int) -> Iterator[bytes]:
        """Yield what one request gives of a range, never more than was asked for."""
        from huggingface_hub import constants, hf_hub_url

        utils = _utils()
        url = hf_hub_url(self.uri.location, info.key, revision=self.commit)
        headers = {**utils.build_hf_headers(), "Range": f"bytes={start}-{end - 1}", "Accept-Encoding": "identity"}
        # Errors while the body arrives must reach the caller, who knows where to go on: hence retry_on_exceptions=().
        options = {"headers": headers, "timeout": constants.HF_HUB_DOWNLOAD_TIMEOUT, "retry_on_exceptions": ()}
        with (
            asking(self._file(info.key), broken=BrokenOff),
            utils.http_stream_backoff("GET", url, **options) as response,
        ):
            utils.hf_raise_for_status(response)
            self._check_range(info, start, response)
            for chunk in response.iter_bytes():
                yield chunk[: end - start]
                start += len(chunk)
                if start >= end:
                    return
        raise BrokenOff("the answer ended early")

    def _check_range(self, info: ObjectInfo, start: int, response: Any) -> None:
        if response.status_code == 200 and start == 0:
            return
        found = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", response.headers.get("content-range", ""))
        if response.status_code == 206 and found and (int(found[1]), int(found[2])) == (start, info.size_bytes):
            return
        raise StorageError(
            f"{self._file(info.key)}: the server does not give the bytes from {start:,} of {info.size_bytes:,}",
            hint="check HF_ENDPOINT and proxies; without cache=False (--no-cache) files are fetched whole",
        )


def _answer(url: str, *, with_token: bool = True) -> Any:
    from huggingface_hub import constants

    utils, seconds = _utils(), constants.HF_HUB_ETAG_TIMEOUT
    headers = utils.build_hf_headers(token=None if with_token else False)
    response = utils.http_backoff(
        "GET", url, headers=headers, timeout=seconds, max_retries=_RETRIES, base_wait_time=0.5
    )
    utils.hf_raise_for_status(response)
    return response


def _utils() -> Any:
    import huggingface_hub.utils

    return huggingface_hub.utils  # public names, which its annotations do not export


def _tree(uri: ModelURI, url: str | None) -> Iterator[dict[str, Any]]:
    """Yield the entries of all pages."""
    from huggingface_hub import constants

    deadline, num_entries = time.monotonic() + transfer_timeout(), 0
    while url:
        # The address of the next page is the server's word: the token is for the Hub only.
        response = _answer(url, with_token=url.startswith(f"{constants.ENDPOINT}/"))
        entries = response.json()
        num_entries += len(entries)
        if num_entries > MAX_LISTED:
            raise StorageError(f"{uri}: more than {MAX_LISTED:,} files", hint="name a smaller repository")
        if time.monotonic() > deadline:
            raise StorageError(
                f"{uri}: its listing does not end", hint="check HF_ENDPOINT, or raise WMTP_TRANSFER_TIMEOUT"
            )
        yield from entries
        url = response.links.get("next", {}).get("url")


def _commit(model: dict[str, Any]) -> str:
    if not _COMMIT.fullmatch(model["sha"]):
        raise ValueError("no commit")
    return str(model["sha"])


def _files(entries: Iterable[dict[str, Any]]) -> Iterator[HubFile]:
    for entry in entries:
        if entry["type"] != "file":
            continue
        lfs = entry.get("lfs")
        blob, size = (lfs["oid"], lfs["size"]) if lfs else (entry["oid"], entry["size"])
        if not _DIGEST.fullmatch(blob) or not isinstance(size, int) or size < 0:
            raise ValueError("no listing")
        yield HubFile(ObjectInfo(str(entry["path"]), size, f'"{blob}"'), blob, blob if lfs else None)
