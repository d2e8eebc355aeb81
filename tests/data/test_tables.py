import json

import pyarrow
import pytest
from pyarrow import ipc, parquet

from data_files import read
from wmtp.errors import DataError

ROWS = {"text": ["one", "two", "three"], "reward": [0.5, 1.0, 0.0]}


def write_table(path, columns=None, kind="file"):
    table = pyarrow.table(columns or ROWS)
    if path.suffix == ".parquet":
        parquet.write_table(table, path, row_group_size=2)
    else:
        opened = ipc.new_file if kind == "file" else ipc.new_stream
        with opened(str(path), table.schema) as writer:
            writer.write_table(table)
    return path


@pytest.mark.parametrize(
    ("name", "kind"), [("a.parquet", ""), ("a.arrow", "file"), ("a.arrow", "stream"), ("A.FEATHER", "file")]
)
def test_tables_are_read_by_the_names_of_their_columns_and_say_the_row(tmp_path, name, kind):
    path = write_table(tmp_path / name, kind=kind)
    documents = read(path, columns={"r": "reward"})
    assert [(document.text, document.scores["r"]) for document in documents] == [
        ("one", 0.5),
        ("two", 1.0),
        ("three", 0.0),
    ]
    assert documents[2].where == f"{path}: row 3"


def test_a_table_without_the_column_is_refused_with_those_that_it_has(tmp_path):
    path = write_table(tmp_path / "a.parquet", {"texts": ["x"], "id": [1]})
    with pytest.raises(
        DataError, match=r"a\.parquet: the column 'text' is missing; columns found: 'texts', 'id'"
    ) as caught:
        read(path)
    assert caught.value.hint.startswith("set data.train.text in the recipe to the column that holds it (did you")


def test_a_value_that_is_no_text_names_file_and_row(tmp_path):
    path = write_table(tmp_path / "a.parquet", {"text": ["x", None, " "]})
    with pytest.raises(DataError, match="2 faults") as caught:
        read(path)
    assert [fault.partition(": ")[2] for fault in caught.value.faults] == [
        "row 2: 'text' is null, expected text", "row 3: 'text' is ' ', expected text",
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["a.parquet", "a.arrow"])
def test_a_damaged_table_is_refused_by_name(tmp_path, name):
    path = write_table(tmp_path / name)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(DataError, match=rf"{name}: cannot be read as (Parquet|Arrow)"):
        read(path)


def test_a_table_is_not_learned_as_it_stands(tmp_path):
    with pytest.raises(DataError, match="format raw_text learns text as it stands"):
        read(write_table(tmp_path / "a.parquet"), format="raw_text")


def test_tables_of_a_directory_are_read_where_nothing_else_is_there(tmp_path, caplog):
    write_table(tmp_path / "a.parquet")
    assert len(read(tmp_path)) == 3
    (tmp_path / "a.jsonl").write_text(json.dumps({"text": "alone"}))
    assert [document.text for document in read(tmp_path)] == ["alone"]
    assert "left out of directories: 1 *.parquet ('a.parquet')" in caplog.text
