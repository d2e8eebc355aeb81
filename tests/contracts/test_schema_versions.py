"""Every metadata.json that some version of wmtp wrote still reads, or is told how to become readable."""

import json
from pathlib import Path

import pytest

from wmtp.errors import MetadataError
from wmtp.metadata.file import dump_metadata, parse_metadata
from wmtp.metadata.schema import STORAGE_VERSION

FIXTURES = Path(__file__).parent / "metadata"
READABLE = sorted(FIXTURES.glob("2.0/*.json"))
OLDER = sorted(FIXTURES.glob("older/*.json"))


def test_the_current_version_has_fixtures():
    assert any(path.parent.name == STORAGE_VERSION for path in READABLE)
    assert OLDER


@pytest.mark.parametrize("path", READABLE, ids=lambda path: path.stem)
def test_a_file_of_a_readable_version_reads_and_keeps_all_it_says(path):
    metadata = parse_metadata(path.read_bytes(), where=path.name)
    written = json.loads(dump_metadata(metadata))
    said = without_nothing(json.loads(path.read_text()))
    assert covers(written, said)
    assert parse_metadata(dump_metadata(metadata).encode(), where="again") == metadata


@pytest.mark.parametrize("path", OLDER, ids=lambda path: path.stem)
def test_a_file_of_an_older_version_points_to_upgrade(path):
    with pytest.raises(MetadataError) as caught:
        parse_metadata(path.read_bytes(), where=path.name)
    assert caught.value.problem.startswith(f"{path.name}: storage_version is ")
    assert "wmtp upgrade" in caught.value.hint


def without_nothing(value):
    """What a file says: not that something is null, nor that a mapping has no rules of a kind."""
    if isinstance(value, dict):
        kept = {key: without_nothing(item) for key, item in value.items()}
        return {key: item for key, item in kept.items() if item is not None and item not in ([], {})}
    return value


def covers(written, said):
    if isinstance(said, dict):
        return said.keys() <= written.keys() and all(covers(written[key], said[key]) for key in said)
    return written == said
