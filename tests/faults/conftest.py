"""Checkpoints made once, and a fresh site for every test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from checkpoints import write_llama_checkpoint
from faults.site import Files, Site, open_site
from servers.faulty import FaultyServer


@pytest.fixture(scope="session")
def tiny_files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """A checkpoint of 100 KB."""
    return _read(write_llama_checkpoint(tmp_path_factory.mktemp("tiny")))


@pytest.fixture(scope="session")
def other_files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """A later version of the same: every shape is the same, the configuration and all values are others."""
    import torch
    from safetensors.torch import load, save

    files = _read(write_llama_checkpoint(tmp_path_factory.mktemp("other"), rope_theta=5000.0))
    halved = {name: value * torch.tensor(0.5) for name, value in load(files["model.safetensors"]).items()}
    return {**files, "model.safetensors": save(halved, {"format": "pt"})}


@pytest.fixture(scope="session")
def large_files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """A checkpoint of 20 MB, which is fetched in several ranges."""
    sizes = {"vocab_size": 160_000, "tie_word_embeddings": True}
    return _read(write_llama_checkpoint(tmp_path_factory.mktemp("large"), **sizes))


@pytest.fixture
def server() -> Iterator[FaultyServer]:
    with FaultyServer() as started:
        yield started


@pytest.fixture
def bare_site(
    server: FaultyServer,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> Site:
    return open_site(server, monkeypatch, tmp_path, caplog, capfd)


@pytest.fixture
def site(bare_site: Site, tiny_files: Files) -> Site:
    """The small checkpoint on its server."""
    bare_site.store_files(tiny_files)
    return bare_site


@pytest.fixture
def large_site(bare_site: Site, large_files: Files) -> Site:
    """The large checkpoint on its server."""
    bare_site.store_files(large_files)
    return bare_site


def _read(directory: Path) -> Files:
    return {
        path.relative_to(directory).as_posix(): path.read_bytes() for path in directory.rglob("*") if path.is_file()
    }
