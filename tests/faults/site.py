"""A checkpoint behind a server that fails, an earlier file in the cache, and what must hold after every fault."""

from __future__ import annotations

import hashlib
import json
import logging
import pickle
import re
import traceback
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pytest

from servers.environment import use_server
from servers.faulty import FaultyServer
from wmtp.errors import WmtpError
from wmtp.storage.opening import open_store

BUCKET = "models"
WEIGHTS, CONFIG, METADATA = "model.safetensors", "config.json", "metadata.json"
# As long as real ones are.
KEY_ID, SECRET, TOKEN = (
    "AKIARECOGNISABLE0001",
    "recognisable+secret/recognisable+secret/",
    "IQoJrecognisable+token/" * 8,
)

Files = Mapping[str, bytes]
Errors = type[WmtpError] | tuple[type[WmtpError], ...]
_Given = TypeVar("_Given")


@dataclass
class Site:
    """The checkpoint at `s3://models/model`, and everything that watches what loading it does.

    Attributes:
        server: Where it is.
        cache: Where its files are kept.
        files: What the server has below the prefix, by name, as it should be.
        output: What was printed and logged so far.
        monkeypatch: Sets for how long things that fail are tried again.
    """

    server: FaultyServer
    cache: Path
    output: Callable[[], str]
    monkeypatch: pytest.MonkeyPatch
    files: Files = field(default_factory=dict)
    honest: set[str] = field(default_factory=set)
    uri: str = f"s3://{BUCKET}/model"

    def store_files(self, files: Files, prefix: str = "model") -> None:
        """Put a checkpoint on the server, in place of what was there."""
        for name, data in files.items():
            self.server.put(BUCKET, f"{prefix}/{name}", data)
        self.honest |= {sha256(data) for data in (*files.values(), b"abc")}
        self.files = files if prefix == "model" else self.files

    def declare_digests(self) -> None:
        """Let metadata.json say what every other file must be."""
        document = json.loads(self.files[METADATA])
        others = {name: data for name, data in self.files.items() if name != METADATA}
        document["files"] = [{"path": name, "size": len(data), "sha256": sha256(data)} for name, data in others.items()]
        self.store_files({**others, METADATA: json.dumps(document).encode()})

    def load(self, **options: Any) -> Any:
        """Load the model, and see that every value of it is the stored one."""
        import wmtp

        result = wmtp.load(self.uri, **options)
        check_values(result, self.files)
        return result

    def fetch(self, *names: str) -> dict[str, bytes]:
        """Fetch files into the cache, and see that they are the stored ones."""
        paths = open_store(self.uri).local_paths(names or self.files)
        fetched = {name: path.read_bytes() for name, path in paths.items()}
        assert fetched == {name: self.files[name] for name in fetched}
        return fetched

    def fetch_anew(self, *names: str) -> dict[str, bytes]:
        """Fetch files as if they had not been fetched before: as new versions, of the same bytes."""
        for name in names:
            self.server.put(BUCKET, f"model/{name}", self.files[name], etag=f'"{uuid.uuid4().hex}"')
        return self.fetch(*names)

    def list_and_fetch(self) -> None:
        """Do to every file of the listing what a copy of the checkpoint does."""
        store = open_store(self.uri)
        names = [info.name for info in store.list_files()]
        assert set(self.files) <= set(names)
        store.local_paths(names)

    @contextmanager
    def tried_for(self, seconds: str) -> Iterator[None]:
        """Let what fails be tried again for so long, and no longer."""
        with self.monkeypatch.context() as patch:
            patch.setenv("WMTP_TRANSFER_TIMEOUT", seconds)
            yield

    def survives(self, act: Callable[[], _Given]) -> _Given:
        """Do something that must succeed in spite of a fault."""
        before = self._blobs()
        given = act()
        self._check(before)
        return given

    def refuses(
        self,
        act: Callable[[], object],
        error: Errors,
        *told: str,
        recovers: Callable[[], object] | None = None,
        timeout: str = "0.5",
    ) -> WmtpError:
        """Do something that must fail, and must succeed without cleaning up once the faults are gone.

        Args:
            act: What fails.
            error: The error's type, no other; several where it depends on what is noticed first.
            *told: What its text has, as regular expressions.
            recovers: What succeeds afterwards; None: the act itself.
            timeout: For how many seconds it is tried.
        """
        before = self._blobs()
        caught = self._refused(act, timeout)
        if not self._is_as_told(caught, error, told):  # a busy machine may have been too slow for what is right
            caught = self._refused(act, "20")
        self._check(before)
        self._check_error(caught, error, told)
        self.server.heal()
        self.survives(recovers or act)
        return caught

    def _refused(self, act: Callable[[], object], timeout: str) -> WmtpError:
        with pytest.raises(WmtpError) as caught, self.tried_for(timeout):
            act()
        return caught.value

    def _is_as_told(self, caught: WmtpError, error: Errors, told: tuple[str, ...]) -> bool:
        is_right_type = type(caught) in (error if isinstance(error, tuple) else (error,))
        return is_right_type and all(re.search(pattern, str(caught)) for pattern in told)

    def survives_or_refuses(self, act: Callable[[], object], error: Errors, *told: str) -> list[int]:
        """Do something that may succeed or fail, if only in order; returns how much was sent for each request."""
        before = self._blobs()
        try:
            with self.tried_for("0.5"):
                act()
        except error as caught:
            self._check_error(caught, error, told)
        self._check(before)
        sent = [request.sent_bytes for request in self.server.requests]
        self.server.heal()
        self.survives(act)
        return sent

    def _check(self, before: Mapping[str, tuple[str, int]]) -> None:
        """P1: what has a final name is complete and right. P2: what was there before is there, and unchanged."""
        after = self._blobs()
        for name, (digest, _) in after.items():
            assert name == digest, f"{name} is in the cache, and its digest is {digest}"
            assert digest in self.honest, f"{name} is in the cache, and no version of any file"
        assert {name: after.get(name) for name in before} == before
        self._check_secrets(self.output())

    def _check_error(self, caught: WmtpError, error: Errors, told: tuple[str, ...]) -> None:
        """P4: the error is typed, names the place and the cause, and says what to do."""
        assert self._is_as_told(caught, error, told), f"not {error} with {told}: {caught!r}"
        text = str(caught)
        assert re.search(f"s3://{BUCKET}|s3://none-such", text), text
        assert caught.hint
        assert len(text) < 2000
        assert all(0x20 <= ord(character) < 0x7F for character in text.replace("\n", "")), text
        assert str(pickle.loads(pickle.dumps(caught))) == text
        self._check_secrets("".join(traceback.format_exception(caught)))

    def _check_secrets(self, text: str) -> None:
        signatures = {
            s for request in self.server.requests for s in re.findall("Signature=(\\w+)", str(request.headers))
        }
        for secret in (KEY_ID, SECRET, TOKEN, *signatures):
            assert secret not in text, f"{secret} is shown in: {text}"

    def _blobs(self) -> dict[str, tuple[str, int]]:
        blobs = self.cache / "blobs"
        found = sorted(blobs.iterdir()) if blobs.exists() else []
        return {path.name: (sha256(path.read_bytes()), path.stat().st_ino) for path in found}


def open_site(
    server: FaultyServer,
    monkeypatch: pytest.MonkeyPatch,
    home: Path,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> Site:
    """Return a site without a checkpoint; one file of another one is in the cache already."""
    use_server(monkeypatch, server.endpoint, key=KEY_ID, secret=SECRET, token=TOKEN, home=home)
    # A busy machine may take its time where nothing is to fail.
    monkeypatch.setenv("WMTP_TRANSFER_TIMEOUT", "60")
    caplog.set_level(logging.DEBUG)
    printed: list[str] = []

    def output() -> str:
        printed.extend(capfd.readouterr())
        return "\n".join([*printed, caplog.text])

    site = Site(server, home / "cache", output, monkeypatch)
    site.store_files({"file": b"earlier"}, prefix="earlier")
    open_store(f"s3://{BUCKET}/earlier").local_paths(["file"])
    server.requests.clear()
    return site


def check_values(result: Any, files: Files) -> None:
    """P3: a model has the stored values, and no others."""
    import torch
    from safetensors.torch import load

    stored, held = load(files[WEIGHTS]), result.model.state_dict()
    for name, value in stored.items():
        assert torch.equal(held[name], value), name


def sha256(data: bytes) -> str:
    """Return the digest of data, in hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()
