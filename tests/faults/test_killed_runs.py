"""Runs that are killed at any moment: no checkpoint is lost, and on a CPU what goes on ends with the same bytes."""

import signal

import pytest

from run_files import RunFiles, contents, processes
from run_kills import KILLED, survived
from wmtp.publishing.publish import is_complete


@pytest.fixture(scope="module")
def ask():
    with processes() as starter:
        yield starter


@pytest.mark.parametrize(
    ("algorithm", "architecture", "kills"),
    [
        ("baseline-mtp", "gpt2", [("forward", 7), ("file", 31), ("forward", 3)]),
        ("rho1-wmtp", "llama", [("forward", 6), ("file", 30)]),
        # The first two in the stage of value heads.
        ("critic-wmtp", "llama", [("forward", 11), ("file", 12), ("forward", 33), ("file", 12)]),
    ],
)
def test_a_run_that_is_killed_and_goes_on_has_every_bit_of_one_that_is_not(
    tmp_path, ask, algorithm, architecture, kills
):
    files = RunFiles(tmp_path, algorithm, architecture)
    whole = ask(files, "whole", False, "", 0)
    killed = [ask(files, "broken", number > 0, *kill) for number, kill in enumerate(kills)]
    last = ask(files, "broken", True, "", 0)
    assert [answer["ended"] for answer in (whole, *killed, last)] == ["finished", *[KILLED] * len(kills), "finished"]
    assert (last["final"], last["explained"]) == (whole["final"], whole["explained"])
    assert last["seen"]["forward"] < whole["seen"]["forward"]
    expected, found = contents(files.run("whole")), contents(files.run("broken"))
    assert [name for name in {**expected, **found} if expected.get(name) != found.get(name)] == []
    assert {"step-2/training_state/optimizer.safetensors", "final/model.safetensors"} <= set(found)


def test_twenty_kills_during_saves_and_during_training_lose_nothing(tmp_path, ask):
    files = RunFiles(tmp_path, "baseline-mtp", train={"save_steps": 1, "eval_steps": 50, "max_steps": 16})
    saving = survived(files, ask, "file", kills=12, most=55, seed=1)
    training = survived(files, ask, "forward", kills=8, most=5, seed=2)
    assert (saving.faults, training.faults) == ([], [])
    assert saving.kills + training.kills == 20


def test_a_stage_of_value_heads_is_stopped_by_a_signal_and_a_second_one_ends_at_once(tmp_path, ask):
    files = RunFiles(tmp_path, "critic-wmtp")
    assert ask(files, "run", False, "SIGTERM", 7)["ended"] == "SystemExit: 143"
    assert ask(files, "run", True, "SIGINT twice", 30)["ended"] == f"by signal {int(signal.SIGINT)}"
    assert all(is_complete(path.parent) for path in files.run("run").rglob("manifest.json"))
    assert ask(files, "run", True, "", 0)["ended"] == "finished"
