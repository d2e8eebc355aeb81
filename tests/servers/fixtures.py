"""Servers as fixtures; none starts before the first test that asks for it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from servers.environment import use_server
from servers.seaweed import ACCESS_KEY, SECRET_KEY, SeaweedServer


@pytest.fixture(scope="session")
def seaweed() -> Iterator[SeaweedServer]:
    """A real S3 server, one for all tests; it starts (in 3 s) when its endpoint is first asked for."""
    server = SeaweedServer()
    yield server
    server.stop()


@pytest.fixture
def s3_bucket(
    seaweed: SeaweedServer, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """The name of a fresh bucket; the environment leads every S3 client to it, and wmtp to an empty cache."""
    home: Path = tmp_path_factory.mktemp("home")
    use_server(monkeypatch, seaweed.endpoint, key=ACCESS_KEY, secret=SECRET_KEY, home=home)
    name = seaweed.create_bucket()
    yield name
    seaweed.delete_bucket(name)
