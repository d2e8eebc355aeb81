"""Tasks as MBPP and HumanEval write them."""

import gzip
import json

import pytest

from wmtp.errors import DataError
from wmtp.evaluation import read_tasks, run_tests

MBPP = {
    "task_id": 7,
    "text": "Double x.",
    "code": "def f(x):\r\n    return 2 * x",
    "test_list": ["assert f(1) == 2", "assert f(2) == 4"],
}
HUMAN = {
    "task_id": "HumanEval/0",
    "prompt": "def f(x):\n",
    "entry_point": "f",
    "canonical_solution": "    return 2 * x\n",
    "test": "def check(candidate):\n    assert candidate(1) == 2\n",
}


@pytest.fixture
def written(tmp_path):
    def write(*entries):
        path = tmp_path / "tasks.jsonl"
        path.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
        return path

    return write


def outcomes(path, *answers):
    (task,) = read_tasks(path).values()
    return [
        (each.status, each.num_passed)
        for each in run_tests([task.program(answer) for answer in answers], allow_code_execution=True)
    ]


def test_a_task_of_mbpp_has_a_test_for_each_assert(written):
    path = written(MBPP)
    task = read_tasks(path)["7"]
    assert (task.prompt, task.solution) == (MBPP["text"], MBPP["code"])
    assert outcomes(path, task.solution, "def f(x): return x + 1") == [("passed", 2), ("failed", 1)]


def test_what_mbpp_sets_up_for_its_tests_sees_the_program(written):
    path = written({**MBPP, "test_setup_code": "g = f", "test_list": ["assert g(1) == 2"]})
    assert outcomes(path, MBPP["code"]) == [("passed", 1)]


def test_a_task_of_humaneval_goes_on_from_its_prompt(written):
    assert outcomes(written(HUMAN), HUMAN["canonical_solution"], "    return x\n") == [("passed", 1), ("failed", 0)]


def test_a_packed_file_is_read(tmp_path):
    path = tmp_path / "tasks.jsonl.gz"
    path.write_bytes(gzip.compress(json.dumps(HUMAN).encode()))
    assert list(read_tasks(path)) == ["HumanEval/0"]


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        ({**MBPP, "test_list": []}, "'test_list' is [], expected a list of code, not empty"),
        ({**MBPP, "test_list": "assert f"}, "'test_list' is 'assert f', expected a list of code, not empty"),
        ({**HUMAN, "entry_point": "f; import os"}, "'entry_point' is 'f; import os', expected the name of a function"),
        ({"text": "Double x."}, "the key 'test' is missing; keys found: 'text'"),
    ],
)
def test_what_is_no_task_is_named_by_line_and_key(written, entry, told):
    path = written(entry)
    with pytest.raises(DataError) as refused:
        read_tasks(path)
    assert refused.value.problem == f"{path}:1: {told}"


def test_all_faults_of_a_file_are_told_at_once(written):
    with pytest.raises(DataError) as refused:
        read_tasks(written(MBPP, {**MBPP, "test_list": 1}, MBPP))
    assert "2 faults" in refused.value.problem
    assert "task_id '7' stands twice" in refused.value.faults[1]
