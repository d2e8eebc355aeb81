"""Checkpoints that move: a directory, and a server that holds them and fails when it is told to."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
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
def given_up_soon() -> Callable[[], AbstractContextManager[None]]:
    """Within the block, failing requests are tried again for a second."""

    @contextmanager
    def impatient() -> Iterator[None]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("WMTP_TRANSFER_TIMEOUT", "1")
            yield

    return impatient


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultyServer]:
    """A server with the empty bucket `models`, to which the environment leads."""
    with FaultyServer() as started:
        use_server(monkeypatch, started.endpoint, home=tmp_path_factory.mktemp("home"))
        monkeypatch.setenv("WMTP_TRANSFER_TIMEOUT", "60")  # a busy machine may take its time where nothing is to fail
        started.put("models", "other/file", b"")
        yield started
