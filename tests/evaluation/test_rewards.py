"""From answers to the column of rewards that training reads."""

import json

import pytest

from wmtp.data.documents import read_documents
from wmtp.errors import DataError, TrustError
from wmtp.evaluation import write_rewards
from wmtp.settings.data import TrainingData

TASK = {"task_id": 7, "text": "Double x.", "test_list": ["assert f(1) == 2", "assert f(2) == 4"]}
ANSWERS = ["def f(x): return 2 * x", "def f(x): return x + 1", "def f(x): return 0", "no program"]


@pytest.fixture
def files(tmp_path):
    (tmp_path / "tasks.jsonl").write_text(json.dumps(TASK))
    lines = [json.dumps({"task_id": 7, "code": code}) + "\n" for code in ANSWERS]
    (tmp_path / "answers.jsonl").write_text("".join(lines))
    return tmp_path / "tasks.jsonl", tmp_path / "answers.jsonl", tmp_path / "rewarded.jsonl"


@pytest.mark.parametrize(("how", "rewards"), [("share", [1.0, 0.5, 0.0, 0.0]), ("all", [1.0, 0.0, 0.0, 0.0])])
def test_rewards_stand_beside_answers_as_training_reads_them(files, how, rewards):
    assert write_rewards(*files, allow_code_execution=True, how=how) == rewards
    source = TrainingData(
        files=[str(files[2])], format="prompt_completion", prompt="text", completion="code", max_length=32
    )
    documents = read_documents(source, field="data.train", columns={"reward": "reward"})
    assert [document.scores["reward"] for document in documents] == rewards
    assert [document.prompt for document in documents] == ["Double x."] * 4


def test_nothing_is_written_before_the_operator_agrees(files):
    with pytest.raises(TrustError, match="nobody has agreed to that"):
        write_rewards(*files, allow_code_execution=False)
    assert not files[2].exists()


def test_an_answer_to_no_task_is_named(files):
    files[1].write_text(json.dumps({"task_id": "x7", "code": ""}))
    with pytest.raises(DataError) as refused:
        write_rewards(*files, allow_code_execution=True)
    assert refused.value.problem == f"{files[1]}:1: task_id is 'x7', and there is no such task"
    assert "did you mean '7'" in refused.value.hint


def test_an_answer_under_another_key_is_named(files):
    with pytest.raises(DataError) as refused:
        write_rewards(*files, allow_code_execution=True, answer="completion")
    assert "4 faults" in refused.value.problem
    assert "the key 'completion' is missing; keys found: 'task_id', 'code'" in refused.value.faults[0]
