"""Faulty data: all of it told at once, and only what is read has to be right."""

import pytest

from data_files import read, write_lines
from wmtp.errors import DataError


def test_every_faulty_line_of_every_file_is_told_at_once(tmp_path):
    write_lines(tmp_path / "a.jsonl", *({"text": "good"} if n % 3 else {"txt": n} for n in range(60)))
    (tmp_path / "b.jsonl").write_bytes(b'{"text": "fine"}\n{"text": "\xe9"}\n{\n')
    (tmp_path / "c.csv").write_text("text\na\n")
    with pytest.raises(DataError, match=r"^data\.train: 23 faults\n") as caught:
        read(tmp_path / "b.jsonl", tmp_path / "c.csv", tmp_path / "a.jsonl")
    faults = caught.value.faults
    assert len(faults) == 21
    assert faults[0] == f"{tmp_path}/b.jsonl:2: is not UTF-8 at byte 10"
    assert faults[1].startswith(f"{tmp_path}/b.jsonl:3: is not JSON: ")
    assert faults[2] == f"{tmp_path}/c.csv: a table in text, and such files are not read"
    lines = [f"{tmp_path}/a.jsonl:{1 + 3 * n}" for n in range(17)]
    assert [fault.split(": ")[0] for fault in faults[3:20]] == lines
    assert faults[20] == "and 3 more"


def test_faults_of_one_kind_keep_their_hint(tmp_path):
    path = write_lines(tmp_path / "a.jsonl", {"content": "a"}, {"content": "b"})
    with pytest.raises(DataError, match="2 faults") as caught:
        read(path, format="prompt_completion", prompt="content")
    assert caught.value.hint == "set data.train.completion in the recipe to the key that holds it"


ODD = ["NaN", "-Infinity", "1e999", "9" * 50, '"\\ud800"', '{"a": 1, "a": 2}', "[[NaN]]", "-0", "9" * 5000]


@pytest.mark.parametrize("value", ODD)
def test_a_value_that_nobody_reads_is_no_fault(tmp_path, value):
    (tmp_path / "a.jsonl").write_text(f'{{"other": {value}, "text": "a", "other": 1, "passed": 0.5}}\n')
    (document,) = read(tmp_path / "a.jsonl", columns={"reward": "passed"})
    assert (document.text, document.scores) == ("a", {"reward": 0.5})


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("NaN", "'text' is NaN, which is not JSON"),
        ("1e999", "'text' is the number '1e999', which overflows"),
        ("9" * 50, "'text' is an integer of 50 digits"),
        ('"a\\ud800b"', r"'text' has a lone surrogate in it, '\ud800', which is no character"),
        ('"a", "text": "b"', "'text' stands twice in one object"),
    ],
)
def test_the_same_value_in_a_key_that_is_read_is_named_with_its_line(tmp_path, text, fault):
    path = tmp_path / "a.jsonl"
    path.write_text(f'{{"text": "fine \\ud83d\\ude00"}}\n{{"text": {text}}}\n')
    with pytest.raises(DataError) as caught:
        read(path)
    assert caught.value.problem == f"{path}:2: {fault}"


def test_a_prompt_with_half_a_character_is_a_fault_and_an_empty_one_is_none(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"prompt": "", "completion": "c"}\n{"prompt": "\\udfff", "completion": "c"}\n')
    with pytest.raises(DataError, match=r"a\.jsonl:2: 'prompt' has a lone surrogate"):
        read(path, format="prompt_completion")


def test_a_line_that_is_too_large_is_named_by_its_number(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"text": "a"}\n{"text": "' + b"x" * (64 << 20) + b'"}\n{"text": "b"}\n')
    with pytest.raises(DataError, match=r"a\.jsonl:2: is larger than 67,108,864 bytes"):
        read(path)
