import json
import subprocess
import sys
from pathlib import Path

import pytest

QUALITY = Path(__file__).resolve().parents[2] / "benchmarks" / "quality.py"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """What the short variant measured, by experiment and arm."""
    directory = tmp_path_factory.mktemp("quality")
    command = [sys.executable, str(QUALITY), "--short", "--results", str(directory)]
    ran = subprocess.run(command, check=False, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    records = json.loads((directory / "quality.json").read_text(encoding="utf-8"))["records"]
    return {(record["experiment"], record["arm"]): record for record in records}


def loss(results, arm):
    return results["noise", arm]["held_out_loss"]


def test_signed_selection_wins_back_part_of_what_noise_costs(results):
    assert loss(results, "clean") < loss(results, "token_skip") < loss(results, "uniform")
    assert results["noise", "token_skip"]["share_kept"] < 0.6


def test_an_absolute_score_keeps_the_noise_and_is_worse_than_no_selection(results):
    assert loss(results, "absolute") > loss(results, "uniform")
    assert results["noise", "absolute"]["share_kept"] > results["noise", "token_skip"]["share_kept"]


def test_a_reward_teaches_which_of_two_equally_likely_rules_is_right(results):
    before, after = results["reward", "pretrained"], results["reward", "critic_batch"]
    assert before["probability"] == pytest.approx(0.5, abs=0.1)
    assert after["probability"] > 0.6
    assert after["gate"] == ""


def test_shuffled_rewards_are_refused_and_would_gain_nothing(results):
    shuffled = results["reward", "shuffled"]
    assert "of the variance of rewards at the end of documents, and at least 0.05 is needed" in shuffled["gate"]
    assert shuffled["probability"] == pytest.approx(0.5, abs=0.1)
