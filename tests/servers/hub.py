"""A Hugging Face Hub of this machine: the few routes that huggingface_hub calls to read a repository, over plain HTTP.

As on the real one, large files are not served by the Hub itself: it redirects to a second server with a signed address.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

import huggingface_hub
import pytest
from huggingface_hub import constants

from servers.hub_writing import Writing

SIGNATURE = "Signature=of-the-storage"
LARGE_BYTES = 1024  # from here on a file is LFS; the real limit is 10 MB
_PAGE_ENTRIES = 5


@dataclass
class Repository:
    """A repository: its branches, the files of each commit, and who may read it."""

    revisions: dict[str, str] = field(default_factory=dict)
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    token: str | None = None
    is_gated: bool = False
    is_private: bool = False
    messages: list[str] = field(default_factory=list)

    def commit(self, files: dict[str, bytes], branch: str = "main") -> str:
        """Record the files of a new commit at the end of a branch; returns the commit."""
        seed = repr((len(self.commits), sorted(files.items())))
        sha = hashlib.sha1(seed.encode()).hexdigest()
        self.commits[sha] = files
        self.revisions[branch] = sha
        return sha


class HubServer:
    """Repositories by `org/name`, the requests that came, and what is to go wrong.

    Attributes:
        repositories: What there is.
        requests: Method and path of each request, and whether a token came with it.
        damaged: For how many more downloads of a large file, by its sha256, the first byte is flipped.
        broken: After how many bytes each of the next downloads of a large file, by its sha256, breaks off.
        next_page: Where the first page of a listing says that the next one is, if not where it is.
        failing: Status of each of the next answers of the API.
        has_xet: Whether large files are said to be in Xet's storage, which answers nothing here but 404.
        has_ranges: Whether ranges are honoured.
        uploads_left: How many more large files may be uploaded; None: any number.
    """

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.requests: list[tuple[str, str, bool]] = []
        self.damaged: dict[str, int] = {}
        self.broken: dict[str, list[int]] = {}
        self.next_page: str | None = None
        self.failing: list[int] = []
        self.has_ranges, self.has_xet = True, False
        self.uploads_left: int | None = None
        self.blobs: dict[str, bytes] = {}
        self._servers = [self._listen(_Hub), self._listen(_Storage)]

    @property
    def endpoint(self) -> str:
        """`http://127.0.0.1:port` of the Hub."""
        return self._address(0)

    @property
    def storage(self) -> str:
        """`http://127.0.0.1:port` of where large files are."""
        return self._address(1)

    def stop(self) -> None:
        """Stop answering."""
        for server in self._servers:
            server.shutdown()
            server.server_close()

    def asked(self, method: str = "GET") -> list[str]:
        """Return the paths that were asked for with a method."""
        return [path for verb, path, _ in self.requests if verb == method]

    def _listen(self, handler: type[_Handler]) -> ThreadingHTTPServer:
        bound = type("Bound", (handler,), {"hub": self})
        server = ThreadingHTTPServer(("127.0.0.1", 0), bound)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return server

    def _address(self, number: int) -> str:
        return f"http://127.0.0.1:{self._servers[number].server_address[1]}"


@contextmanager
def hub_server(monkeypatch: pytest.MonkeyPatch, home: Path) -> Iterator[HubServer]:
    """A Hub that answers while the block runs; huggingface_hub is led to it as its variables would do at import."""
    server = HubServer()
    settings = {
        "ENDPOINT": server.endpoint,
        "HUGGINGFACE_CO_URL_TEMPLATE": server.endpoint + "/{repo_id}/resolve/{revision}/{filename}",
        "HF_HUB_CACHE": str(home / "hub"),
        "HF_TOKEN_PATH": str(home / "no-token"),
        "HF_HUB_OFFLINE": False,
    }
    for name, value in settings.items():
        monkeypatch.setattr(constants, name, value)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    huggingface_hub.close_session()  # of another test's server
    try:
        yield server
    finally:
        server.stop()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: HubServer

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        url = urlsplit(self.path)
        self.hub.requests.append((self.command, url.path, "Authorization" in self.headers))
        self.answer(unquote(url.path), parse_qs(url.query))

    def send(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def send_content(self, content: bytes, cut: int | None = None, **headers: str) -> None:
        """Answer with a file, or the range of it that was asked for; `cut` bytes of it, then the connection breaks."""
        status, asked = 200, self.headers.get("Range")
        headers["Content-Length"] = str(len(content))
        body = content
        if asked and self.hub.has_ranges:
            first, last = asked.removeprefix("bytes=").split("-")
            body = content[int(first) : int(last) + 1 if last else len(content)]
            headers["Content-Range"] = f"bytes {first}-{int(first) + len(body) - 1}/{len(content)}"
            headers["Content-Length"] = str(len(body))
            status = 206
        self.close_connection = cut is not None
        self.send(status, body[:cut], **headers)


_APIS = ("/api/models/", "/api/datasets/")


class _Hub(Writing, _Handler):
    def answer(self, path: str, query: dict[str, list[str]]) -> None:
        is_api = path.startswith(_APIS)
        parts = (path.split("/", 3)[3] if is_api else path.lstrip("/")).split("/", 3)
        if len(parts) < 4:  # huggingface_hub also asks which programs are agents
            self.send(404)
            return
        org, name, verb, rest = parts
        if is_api and self.hub.failing:
            self.send(self.hub.failing.pop(0))
        elif refusal := self._refusal(f"{org}/{name}"):
            self.send(refusal[0], X_Error_Code=refusal[1])
        else:
            self._found(self.hub.repositories[f"{org}/{name}"], verb, rest, query)

    def _refusal(self, name: str) -> tuple[int, str] | None:
        repository, token = self.hub.repositories.get(name), self.headers.get("Authorization")
        if token == "Bearer revoked":
            return 401, "InvalidToken"
        if repository is None or (repository.token and token != f"Bearer {repository.token}"):
            return (404 if token else 401), "RepoNotFound"
        return (403, "GatedRepo") if repository.is_gated else None

    def _found(self, repository: Repository, verb: str, rest: str, query: dict[str, list[str]]) -> None:
        revision, _, file = (rest, "", "") if verb in ("revision", "xet-read-token") else rest.partition("/")
        commit = repository.revisions.get(revision, revision)
        if commit not in repository.commits:
            self.send(404, X_Error_Code="RevisionNotFound")
        elif verb == "revision":
            facts = {"id": "org/name", "sha": commit, "private": repository.is_private}
            self.send(200, json.dumps(facts).encode(), Content_Type="application/json")
        elif verb == "xet-read-token":
            token = {
                "Cas_Url": f"{self.hub.storage}/xet",
                "Access_Token": "hf_secret",
                "Token_Expiration": str(1 << 40),
            }
            self.send(200, b"{}", **{f"X_Xet_{name}": value for name, value in token.items()})
        elif verb == "tree":
            self._tree(repository.commits[commit], int(query.get("cursor", ["0"])[0]))
        else:
            self._resolve(repository.commits[commit], file, commit)

    def _tree(self, files: dict[str, bytes], first: int) -> None:
        entries = [_entry(name, content) for name, content in sorted(files.items())]
        entries += [{"type": "directory", "path": "sub", "oid": "0" * 40, "size": 0}]
        page, more = entries[first : first + _PAGE_ENTRIES], len(entries) > first + _PAGE_ENTRIES
        address = f"{self.hub.endpoint}{urlsplit(self.path).path}?recursive=true&cursor={first + _PAGE_ENTRIES}"
        link = {"Link": f'<{self.hub.next_page or address}>; rel="next"'} if more else {}
        self.send(200, json.dumps(page).encode(), **link)

    def _resolve(self, files: dict[str, bytes], name: str, commit: str) -> None:
        if name not in files:
            self.send(404, X_Error_Code="EntryNotFound", X_Repo_Commit=commit)
            return
        content, entry = files[name], _entry(name, files[name])
        if "lfs" not in entry:
            self.send_content(content, ETag=f'"{entry["oid"]}"', X_Repo_Commit=commit)
            return
        sha256 = entry["lfs"]["oid"]
        self.hub.blobs[sha256] = content
        route = f"{self.hub.endpoint}/api/models/org/name/xet-read-token/{commit}"
        xet = {"X_Xet_Hash": sha256, "X_Xet_Refresh_Route": route} if self.hub.has_xet else {}
        self.send(
            302,
            Location=f"{self.hub.storage}/{sha256}?{SIGNATURE}",
            X_Repo_Commit=commit,
            X_Linked_Etag=f'"{sha256}"',
            X_Linked_Size=str(len(content)),
            **xet,
        )


class _Storage(Writing, _Handler):
    def answer(self, path: str, _query: dict[str, list[str]]) -> None:
        sha256 = path.lstrip("/")
        if sha256.startswith("xet/"):
            self.send(404)
            return
        if sha256 not in self.hub.blobs:
            self.send(200, b"[]")
            return
        content = self.hub.blobs[sha256]
        if self.hub.damaged.get(sha256, 0) and self.command == "GET":
            self.hub.damaged[sha256] -= 1
            content = bytes([content[0] ^ 1]) + content[1:]
        breaks = self.hub.broken.get(sha256) if self.command == "GET" else None
        self.send_content(content, breaks.pop(0) if breaks else None, ETag=f'"{sha256}"')


def _entry(name: str, content: bytes) -> dict:
    oid = hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()
    entry = {"type": "file", "path": name, "oid": oid, "size": len(content)}
    if len(content) < LARGE_BYTES:
        return entry
    return {**entry, "lfs": {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 134}}
