import json
import logging
import shutil

import pytest
from typer.testing import CliRunner

from builders import write_llama_checkpoint
from wmtp.cli.main import app


@pytest.fixture
def wmtp(tmp_path, monkeypatch):
    """Run a command line in this process; recorded consent is the test's own."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home"))
    logger = logging.getLogger("wmtp")
    handlers, level = logger.handlers, logger.level
    yield lambda *words, **keywords: CliRunner().invoke(app, [str(word) for word in words], **keywords)
    logger.handlers = handlers
    logger.setLevel(level)


@pytest.fixture(scope="session")
def written_llama(tmp_path_factory):
    return write_llama_checkpoint(tmp_path_factory.mktemp("zoo") / "llama")


@pytest.fixture
def llama(written_llama, tmp_path):
    """A tiny llama checkpoint that the test may change."""
    return shutil.copytree(written_llama, tmp_path / "zoo" / "llama")


@pytest.fixture
def edit_metadata():
    """Change fields of a metadata.json without any check."""

    def edit(directory, **changes):
        path = directory / "metadata.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    return edit
