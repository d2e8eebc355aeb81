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


def test_credit_to_tokens_teaches_which_of_two_equally_likely_rules_is_right(results):
    before, after = results["reward", "pretrained"], results["reward", "token"]
    assert before["probability"] == pytest.approx(0.5, abs=0.1)
    assert after["probability"] >= 0.9
    assert after["gate"] == ""


def test_where_documents_make_many_decisions_credit_to_tokens_is_above_weights_of_documents(results):
    token = results["decisions", "token"]
    same, sharpest = (results["decisions", f"documents by exp({power})"] for power in ("R", "R / 0.25"))
    assert token["probability"] > same["probability"] + 0.15
    assert token["probability"] > sharpest["probability"]
    assert token["effective_share"] > sharpest["effective_share"] + 0.2
    assert token["auroc"] > 0.95
    assert token["gate"] == ""


def test_shuffled_rewards_are_refused_and_would_gain_nothing(results):
    for experiment in ("reward", "decisions"):
        shuffled = results[experiment, "token, shuffled"]
        assert "and at least 0.01 is needed: weights would be noise" in shuffled["gate"]
        assert shuffled["probability"] == pytest.approx(0.5, abs=0.1)
