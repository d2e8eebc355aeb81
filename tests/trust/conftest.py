"""A directory for a checkpoint, and consent that is nobody's own."""

import pytest


@pytest.fixture(autouse=True)
def own_config(tmp_path, monkeypatch):
    """No test sees, or writes, the consent of the person who runs it."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


@pytest.fixture
def checkpoint(tmp_path):
    directory = tmp_path / "checkpoint"
    directory.mkdir()
    return directory
