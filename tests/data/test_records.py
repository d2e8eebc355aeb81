import json

import pytest

from wmtp.data.content import Content
from wmtp.data.records import parse_record, record_texts, shows_a_record
from wmtp.errors import DataError

RECORDS = [{"text": 'a, ] } \n" \\ {'}, {"text": "\u2028é"}, {"n": [1, {"x": [2.5, None]}]}]


def content(tmp_path, text, *, is_whole=True):
    return Content(tmp_path / "a.json", text.encode(), is_whole)


def found(tmp_path, text, *, is_whole=True):
    pairs = list(record_texts(content(tmp_path, text, is_whole=is_whole)))
    return [where.partition("a.json:")[2] for where, _ in pairs], [parse_record(data, where) for where, data in pairs]


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("\n\n".join(json.dumps(r, ensure_ascii=False) for r in RECORDS), ["1", "3", "5"]),
        ("\r\n".join(map(json.dumps, RECORDS)) + "\r\n", ["1", "2", "3"]),
        ("\n[" + ",".join(map(json.dumps, RECORDS)) + "]", ["2", "2:31", "2:56"]),
        (json.dumps(RECORDS), ["1", "1:32", "1:58"]),
        ("\ufeff" + json.dumps(RECORDS, indent=1), ["2", "5", "8"]),
        ("\n".join(json.dumps(r, indent=2) for r in RECORDS), ["1", "4", "7"]),
        (" [\n" + ",\n".join(map(json.dumps, RECORDS)) + "\n]\n", ["2", "3", "4"]),
    ],
)
def test_records_are_read_as_they_are_written_and_placed_by_line(tmp_path, text, lines):
    assert found(tmp_path, text) == (lines, RECORDS)


def test_an_empty_array_and_an_empty_file_hold_no_record(tmp_path):
    assert found(tmp_path, "[ ]\n") == found(tmp_path, "") == found(tmp_path, "\n") == ([], [])


@pytest.mark.parametrize(
    ("text", "line", "problem"),
    [
        ('[{"a": 1}\n{"a": 2}]', 2, "Expecting ',' or ']' after an item"),
        ('[{"a": 1},\n{"a" 2}]', 2, "Expecting ':' delimiter"),
        ('[{"a": 1}\n\n', 3, "the array has no end"),
        ('[{"a": 1}]\n]', 2, "something stands after the array"),
        ('{\n"a": 1}\n\n{"a": ', 4, "Expecting value"),
        ("[" * 100_000, 1, "nested too deep"),
    ],
)
def test_json_that_breaks_off_is_named_by_its_line(tmp_path, text, line, problem):
    with pytest.raises(DataError) as caught:
        found(tmp_path, text)
    assert caught.value.problem == f"{tmp_path}/a.json:{line}: is not JSON: {problem}"


def test_items_of_an_array_that_are_no_objects_are_named(tmp_path):
    with pytest.raises(DataError, match=r"a\.json:2: expected a JSON object, found 'b'"):
        found(tmp_path, '[{"text": "a"},\n"b"]')


@pytest.mark.parametrize("separator", ["\n", ",\n"])
def test_of_a_beginning_the_record_that_is_cut_through_is_left_out(tmp_path, separator):
    whole = separator.join(map(json.dumps, RECORDS))
    text = ("[" if "," in separator else "") + whole
    for cut in range(len(text) - len(json.dumps(RECORDS[2])), len(text)):
        assert found(tmp_path, text[:cut], is_whole=False)[1] == RECORDS[:2]


def test_a_beginning_that_holds_no_whole_object_shows_nothing_yet(tmp_path):
    for text in ('{"text": "abc', '{\n"text": "a"\n', '[\n{"text": "a"', "", "[1, 2"):
        assert not shows_a_record(content(tmp_path, text, is_whole=False))
    for text in ('{"text": "a"}\n', '{\n"text": "a"\n}', '[{"text": "a"}, {"te'):
        assert shows_a_record(content(tmp_path, text, is_whole=False))
