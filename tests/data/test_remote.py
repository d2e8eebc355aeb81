import pytest

from data_files import read, write_lines
from servers.seaweed import upload_directory
from wmtp.data.remote import _translated
from wmtp.errors import DataError, StorageError


@pytest.fixture
def prefix(seaweed, s3_bucket, tmp_path):
    directory = tmp_path / "corpus"
    (directory / "more").mkdir(parents=True)
    write_lines(directory / "a.jsonl", {"text": "one"}, {"text": "two"})
    write_lines(directory / "more" / "b.jsonl", {"text": "three"})
    (directory / "c.bin").write_bytes(b"no text")
    return upload_directory(seaweed.client(), s3_bucket, "corpus", directory)


@pytest.mark.parametrize(
    ("ending", "expected"),
    [("", ["one", "two", "three"]), ("/a.jsonl", ["one", "two"]), ("/*.jsonl", ["one", "two"]), ("/**/b*", ["three"])],
)
def test_objects_are_read_by_address_pattern_or_prefix(prefix, ending, expected):
    documents = read(prefix + ending)
    assert [document.text for document in documents] == expected
    assert documents[0].where.startswith(f"{prefix}/")


def test_what_matches_nothing_and_a_fault_in_an_object_are_named_by_address(prefix, seaweed, s3_bucket, tmp_path):
    with pytest.raises(DataError, match=r"data\.train\.files: 's3://.*/\*\.parquet' matches no file that can be read"):
        read(f"{prefix}/*.parquet")
    (tmp_path / "bad").mkdir()
    write_lines(tmp_path / "bad" / "a.jsonl", {"text": "one"}, {"txt": "two"})
    bad = upload_directory(seaweed.client(), s3_bucket, "bad", tmp_path / "bad")
    with pytest.raises(DataError, match=r"s3://.*/bad/a\.jsonl:2: the key 'text' is missing; keys found: 'txt'"):
        read(bad)


def test_a_data_set_of_the_hub_that_is_not_in_the_cache_is_refused_where_requests_are_forbidden():
    with pytest.raises((DataError, StorageError), match=r"hf://datasets/org/name@v1: LocalEntryNotFoundError"):
        read("hf://datasets/org/name@v1/data/*.parquet")


@pytest.mark.parametrize(
    "address", ["hf://datasets/name", "hf://datasets/org/name?splits=x", "hf://datasets/o/n/a?split=b"]
)
def test_what_is_no_address_of_a_data_set_is_refused_with_the_form(address):
    with pytest.raises(DataError, match="is no address of a data set on the Hub") as caught:
        read(address)
    assert "hf://datasets/ORG/NAME/PATH" in caught.value.hint


@pytest.mark.parametrize(
    ("pattern", "name", "matches"),
    [
        ("*.jsonl", "a.jsonl", True),
        ("*.jsonl", "b/a.jsonl", False),
        ("**/a?.gz", "b/c/ab.gz", True),
        ("**/a", "a", True),
    ],
)
def test_a_pattern_means_what_it_means_for_files(pattern, name, matches):
    assert bool(_translated(pattern).fullmatch(name)) is matches
