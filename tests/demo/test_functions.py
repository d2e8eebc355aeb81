"""The functions that the demo of critic-wmtp learns from."""

import json
from textwrap import dedent, indent

import pytest

from wmtp.demo.functions import REWARD_COLUMN, write_functions
from wmtp.demo.zoo import stdlib_sources

BODY = indent("total = first + second\n" * 5 + "return total\n", "    ")
WITH = f'def documented(first, second):\n    """Return the sum."""\n{BODY}'
WITHOUT = f"def plain(first, second):\n{BODY}"


@pytest.fixture
def sources(tmp_path):
    """A file with a method that has a docstring and two functions that have none, and one that is not Python."""
    (tmp_path / "good.py").write_text(f"class Sums:\n{indent(WITH, '    ')}\n\n{WITHOUT}\n\n{WITHOUT}\n")
    (tmp_path / "wrong.py").write_text("def broken(:\n")
    return [tmp_path / "wrong.py", tmp_path / "good.py"]


def read(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_functions_are_whole_without_their_indent_and_say_whether_they_have_a_docstring(sources, tmp_path):
    assert write_functions(tmp_path / "out.jsonl", sources, at_most=10) == 2
    assert read(tmp_path / "out.jsonl") == [
        {"text": dedent(WITH), REWARD_COLUMN: 1},
        {"text": WITHOUT, REWARD_COLUMN: 0},
    ]


def test_there_are_as_many_with_as_without_and_no_more_than_asked_for(tmp_path):
    count = write_functions(tmp_path / "out.jsonl", stdlib_sources()[:30], at_most=20)
    marks = [line[REWARD_COLUMN] for line in read(tmp_path / "out.jsonl")]
    assert (count, sum(marks)) == (20, 10)


def test_a_function_that_is_too_short_or_too_long_for_a_row_is_left_out(tmp_path):
    (tmp_path / "sizes.py").write_text('def short():\n    """Do nothing."""\n\n\n' + WITHOUT)
    assert write_functions(tmp_path / "out.jsonl", [tmp_path / "sizes.py"], at_most=10) == 0
