import bz2
import gzip
import pickle
import zipfile

import pytest

from wmtp.data import content
from wmtp.data.content import NotTextError, content_size, read_content, suffix_of
from wmtp.data.documents import read_documents
from wmtp.errors import DataError
from wmtp.settings.data import DataSource

LINES = b'{"text": "one"}\n{"text": "two"}\n'


def texts(path, **fields):
    source = DataSource.model_validate({"files": [str(path)], **fields})
    return [document.text for document in read_documents(source, field="data.train")]


@pytest.mark.parametrize(
    "name", ["a.jsonl", "a.JSONL", "a.ndjson", "a.json", "a.jsonl.gz", "A.JSON.GZ", "b.ndjson.gz", "packed.jsonl"]
)
def test_json_lines_are_read_under_every_name_of_theirs(tmp_path, name):
    is_packed = name.lower().endswith(".gz") or name.startswith("packed")
    (tmp_path / name).write_bytes(gzip.compress(LINES) if is_packed else LINES)
    assert texts(tmp_path / name) == texts(tmp_path) == ["one", "two"]


def test_a_text_by_gzip_is_read_and_several_parts_of_one_file_are_joined(tmp_path):
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(b"one\r\n") + gzip.compress(b"two"))
    assert texts(tmp_path / "a.txt.gz") == ["one\r\ntwo"]


def test_a_name_says_gzip_and_the_bytes_decide(tmp_path):
    (tmp_path / "a.jsonl.gz").write_bytes(LINES)
    assert texts(tmp_path / "a.jsonl.gz") == ["one", "two"]


def test_what_a_gzip_file_may_hold_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(content, "MAX_UNPACKED_BYTES", 1 << 20)
    path = tmp_path / "bomb.jsonl.gz"
    path.write_bytes(gzip.compress(b" " * (1 << 20)))
    assert len(read_content(path).data) == 1 << 20
    path.write_bytes(gzip.compress(b" " * ((1 << 20) + 1)))
    with pytest.raises(DataError, match=r"bomb\.jsonl\.gz: holds more than 1,048,576 bytes once unpacked") as caught:
        texts(path)
    assert "unpack it" in caught.value.hint


@pytest.mark.parametrize("damage", [lambda data: data[:-9], lambda data: data[:12] + b"\xff" * 8 + data[20:]])
def test_a_damaged_gzip_file_is_named(tmp_path, damage):
    (tmp_path / "a.jsonl.gz").write_bytes(damage(gzip.compress(LINES * 50)))
    with pytest.raises(DataError, match=r"a\.jsonl\.gz: cannot be read: "):
        texts(tmp_path / "a.jsonl.gz")


@pytest.mark.parametrize(
    ("name", "problem", "hint"),
    [
        ("a.csv", "a table in text", "pandas.read_csv('a.csv').to_json('a.jsonl', orient='records', lines=True)"),
        ("a.TSV", "a table in text", "pandas.read_csv('a.TSV', sep='\\t').to_json('a.jsonl'"),
        ("a.csv.gz", "a table in text", "pandas.read_csv('a.csv.gz').to_json('a.csv.jsonl'"),
        ("a.orc", "a table in binary form", "pandas.read_orc('a.orc')"),
        ("a.xlsx", "a spreadsheet", "write it as JSONL, one object a line; with pandas: pandas.read_excel('a.xlsx')"),
        ("a.zip", "packed", "unpack it"),
        ("a.tar.gz", "packed", "unpack it"),
        ("a.jsonl.xz", "packed", "unpack it"),
    ],
)
@pytest.mark.parametrize("format_", ["text", "prompt_completion"])
def test_tables_and_archives_are_refused_by_name_with_a_way_on(tmp_path, name, problem, hint, format_):
    (tmp_path / name).write_text("text,code\na,b\n")
    with pytest.raises(DataError, match=rf"{name}: {problem}") as caught:
        texts(tmp_path / name, format=format_)
    assert hint in caught.value.hint


def test_other_kinds_under_the_name_of_data_are_told_by_their_first_bytes(tmp_path):
    with zipfile.ZipFile(tmp_path / "zip.jsonl", "w") as archive:
        archive.writestr("a.jsonl", LINES)
    (tmp_path / "parquet.json").write_bytes(b"PAR1\x15\x04\x15\0PAR1")
    (tmp_path / "bzip2.txt").write_bytes(bz2.compress(LINES))
    (tmp_path / "pickle.jsonl").write_bytes(pickle.dumps({"text": "a"}, protocol=4))
    expected = {
        "zip.jsonl": ("a zip archive", "unpack it, and name what was in it"),
        "parquet.json": ("Parquet", "name it *.parquet: its columns are read then"),
        "bzip2.txt": ("packed by bzip2", "unpack it, and name what was in it"),
    }
    for name, (kind, hint) in expected.items():
        with pytest.raises(
            DataError, match=rf"{name}: not readable as UTF-8 text: by its first bytes it is {kind}"
        ) as e:
            texts(tmp_path / name)
        assert e.value.hint == hint
    with pytest.raises(DataError, match=r"pickle\.jsonl: not readable as UTF-8 text: it has NUL characters"):
        texts(tmp_path / "pickle.jsonl")


def test_text_that_begins_with_such_letters_is_text(tmp_path):
    (tmp_path / "a.txt").write_text("PAR1 is a gene, BZh is not.")
    assert texts(tmp_path / "a.txt") == ["PAR1 is a gene, BZh is not."]


def test_a_beginning_may_end_within_a_character(tmp_path):
    (tmp_path / "a.txt").write_text("aé")
    beginning = read_content(tmp_path / "a.txt", 2)
    assert (beginning.text(), beginning.is_whole) == ("a", False)
    assert read_content(tmp_path / "a.txt", 3).text() == "aé"
    assert read_content(tmp_path / "a.txt", 3).is_whole


def test_the_size_of_what_is_packed_is_known_without_unpacking(tmp_path):
    (tmp_path / "a.gz").write_bytes(gzip.compress(LINES * 100))
    (tmp_path / "a.txt").write_bytes(LINES)
    assert content_size(tmp_path / "a.gz") == 100 * len(LINES)
    assert content_size(tmp_path / "a.txt") == len(LINES)


def test_names_say_what_files_are_whatever_their_capitals(tmp_path):
    found = [suffix_of(tmp_path / name) for name in ("a.JSONL", "a.json.GZ", "a.b.Py", "gz", "a.gz", ".gz")]
    assert found == [".jsonl", ".json", ".py", "", "", ""]


def test_a_file_that_is_no_text_survives_pickling_as_an_error(tmp_path):
    error = pickle.loads(pickle.dumps(NotTextError(tmp_path / "a", "it has NUL characters")))
    assert isinstance(error, DataError)
    assert str(error).startswith(f"{tmp_path}/a: not readable as UTF-8 text: it has NUL characters\nhint: ")


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.json.gz"])
def test_what_git_lfs_leaves_in_a_files_place_is_not_learned(tmp_path, name):
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
    (tmp_path / name).write_bytes(gzip.compress(pointer) if name.endswith(".gz") else pointer)
    with pytest.raises(DataError, match=f"{name}: this is a Git LFS pointer, not the file itself") as refusal:
        texts(tmp_path / name)
    assert "git lfs pull" in refusal.value.hint
    with pytest.raises(DataError, match="this is a Git LFS pointer"):
        texts(tmp_path)
