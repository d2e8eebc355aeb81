"""pass@k of models that know their answers by heart, good ones and hostile ones."""

import socket
import sys
from dataclasses import replace

import numpy as np
import pytest

import wmtp
from answering_models import human_task, write_answering, write_tasks
from wmtp.errors import DataError, SettingsError, TrustError
from wmtp.evaluation import RunLimits, TaskOptions, evaluate_tasks, read_tasks
from wmtp.evaluation.answers import Answer, Asked, Asking
from wmtp.evaluation.outcomes import Confinement, Outcome
from wmtp.evaluation.solving import task_shares
from wmtp.evaluation.task_results import TaskAnswers
from wmtp.models.causal import causal_model

ADD, DOUBLE = "def add(a, b):\n", "def double(x):\n"
TEXT = "Add two.\n"
linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux has these limits")


@pytest.fixture(scope="module")
def zoo(tmp_path_factory):
    zoo = tmp_path_factory.mktemp("zoo")
    answers = {
        ADD: "    return a + b\n\nprint(add(1, 2))\n",
        DOUBLE: "    return 3 * x\n",
        TEXT: "def add(a, b):\n    return a + b\n",
    }
    write_answering(zoo / "model", answers)
    write_tasks(
        zoo / "human.jsonl",
        human_task(0, ADD, "add", "assert f(1, 2) == 3"),
        human_task(1, DOUBLE, "double", "assert f(2) == 4"),
    )
    write_tasks(zoo / "mbpp.jsonl", {"task_id": 1, "text": TEXT, "test_list": ["assert add(1, 2) == 3"]})
    return zoo


def solve(zoo, tasks="human.jsonl", models="model", **options):
    return evaluate_tasks(zoo / models, zoo / tasks, **{"allow_code_execution": True, "max_new_tokens": 60, **options})


def test_pass_at_1_is_the_share_of_tasks_that_the_most_probable_answer_solves(zoo):
    (model,) = solve(zoo).models
    assert model.pass_at[1].value == 0.5
    assert [task.num_passed for task in model.tasks] == [1, 0]
    # What comes behind the body is no part of it, and is not even generated.
    assert model.tasks[0].answers[0].code == "    return a + b\n"
    assert model.tasks[1].outcomes[0].error == "AssertionError"


def test_a_task_with_a_list_of_tests_is_answered_by_a_whole_program(zoo):
    (model,) = solve(zoo, "mbpp.jsonl", template="{prompt}").models
    assert model.pass_at[1].value == 1.0


def test_the_usual_template_shows_prompt_and_tests(zoo):
    (task,) = read_tasks(zoo / "mbpp.jsonl").values()
    assert TaskOptions().asking.prompt(task) == '"""\nAdd two.\n\nassert add(1, 2) == 3\n"""\n'
    first = next(iter(read_tasks(zoo / "human.jsonl").values()))
    assert TaskOptions().asking.prompt(first) == ADD
    assert TaskOptions(template="Q: {prompt}A:").asking.prompt(first) == f"Q: {ADD}A:"


def test_samples_are_drawn_by_the_seed_and_do_not_hang_on_other_tasks(zoo):
    loaded = wmtp.load(zoo / "model")
    asked = Asked(causal_model(loaded.model), loaded.tokenizer, loaded.checkpoint.config, "model")
    first, second = read_tasks(zoo / "human.jsonl").values()
    asking = Asking(3, 3.0, 12, None, batch_size=2, seed=4)
    one = asked.answers(first, 0, asking)
    asked.answers(second, 1, asking)
    assert asked.answers(first, 0, asking) == one
    assert len({answer.code for answer in one}) == 3
    assert asked.answers(first, 0, replace(asking, seed=5)) != one


def test_pass_at_k_of_a_task_is_the_unbiased_estimate():
    def answered(*statuses):
        outcomes = [Outcome(status, 0, 1, "", Confinement()) for status in statuses]
        return TaskAnswers("task", [Answer("", False)] * len(statuses), outcomes)

    found = task_shares([answered("passed", "failed", "limited", "passed"), answered(*["timed out"] * 4)], (1, 2, 4))
    # Of the six pairs of four answers, one has neither of the two that pass.
    np.testing.assert_allclose(found, [[0.5, 5 / 6, 1.0], [0.0, 0.0, 0.0]])


def test_models_are_compared_on_the_same_tasks(zoo):
    evaluation = evaluate_tasks(
        [zoo / "model"] * 2, zoo / "human.jsonl", allow_code_execution=True, max_new_tokens=40, resamples=20
    )
    (difference,) = evaluation.differences
    estimate = difference.pass_at[1]
    assert (estimate.value, estimate.low, estimate.high) == (0.0, 0.0, 0.0)
    assert evaluation.models[0].pass_at[1].low == 0.0
    assert evaluation._repr_html_().count("<table>") == 2


def test_an_answer_that_is_cut_says_so(zoo):
    evaluation = solve(zoo, max_new_tokens=5)
    assert evaluation.models[0].num_ran_out() == 2
    assert any("2 answers cut at 5 tokens" in note for note in evaluation.notes())


def test_without_consent_nothing_is_generated(zoo):
    with pytest.raises(TrustError, match="nobody has agreed to that"):
        solve(zoo, allow_code_execution=False)


def test_a_prompt_that_leaves_no_room_is_refused_with_its_task(zoo):
    write_tasks(zoo / "long.jsonl", human_task(7, f"# {'x' * 300}\n", "f", "pass"))
    with pytest.raises(
        DataError, match="the prompt of task 'Test/7' has 303 tokens, and the model knows 256 positions"
    ):
        solve(zoo, "long.jsonl")


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"k": (2,)}, r"k is \[2\], expected numbers from 1 to samples, which is 1"),
        ({"template": "Answer:"}, r"template is 'Answer:', expected one \{prompt\} in it"),
        ({"temperature": -1.0}, "temperature is -1.0, expected 0 or more"),
        ({"sample": 2}, r"evaluate_tasks has no option 'sample' \(did you mean 'samples'\?\)"),
    ],
)
def test_an_option_that_is_none_is_refused(zoo, options, problem):
    with pytest.raises(SettingsError, match=problem):
        solve(zoo, **options)


@linux
def test_answers_that_write_outside_stay_or_connect_get_nothing(tmp_path, tmp_path_factory, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "scratch"))
    (tmp_path / "scratch").mkdir()
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        outside = tmp_path_factory.getbasetemp() / "o"
        answers = {
            "A\n": f"open('{outside}', 'w')\n",
            "B\n": "import os\nos.fork()\n",
            "C\n": f"import socket\nsocket.create_connection({server.getsockname()!r})\n",
            "D\n": "while 1: pass\n",
        }
        write_answering(tmp_path / "model", answers)
        tasks = [{"task_id": name, "text": name, "test_list": ["pass"]} for name in answers]
        write_tasks(tmp_path / "tasks.jsonl", *tasks)
        (model,) = solve(
            tmp_path, "tasks.jsonl", template="{prompt}", max_new_tokens=100, limits=RunLimits(1, 2.0)
        ).models
        assert [task.answers[0].code for task in model.tasks] == list(answers.values())
        with pytest.raises(BlockingIOError):  # nobody has knocked
            server.accept()
    outcomes = [task.outcomes[0] for task in model.tasks]
    if all(vars(outcomes[0].confinement).values()):
        assert [outcome.status for outcome in outcomes] == ["limited", "limited", "limited", "timed out"]
        assert not outside.exists()
    assert model.pass_at[1].value == 0.0
    assert list((tmp_path / "scratch").iterdir()) == []
