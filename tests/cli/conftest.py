import json
import shutil

import pytest

from checkpoints import write_llama_checkpoint


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
