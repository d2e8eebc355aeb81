"""Checkpoints that move: a directory, and a server that holds them and fails when it is told to."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from checkpoints import write_files
from servers.environment import use_server
from servers.faulty import FaultyServer
from tensor_files import tensors_as_bytes


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A checkpoint without a manifest, of three files."""
    return write_files(tmp_path / "model")


@pytest.fixture
def large_model(model: Path) -> Path:
    """The same with weights of 25 MB, which come in several ranges."""
    (model / "model.safetensors").write_bytes(tensors_as_bytes({"w": ("F32", [6_250_000])}))
    return model


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultyServer]:
    """A server with the empty bucket `models`, to which the environment leads; failing requests are given up soon."""
    with FaultyServer() as started:
        use_server(monkeypatch, started.endpoint, home=tmp_path_factory.mktemp("home"))
        monkeypatch.setenv("WMTP_TRANSFER_TIMEOUT", "1")
        started.put("models", "other/file", b"")
        yield started
