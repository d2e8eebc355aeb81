"""The command `report`."""

from __future__ import annotations

import json

import pytest

from saved_runs import train_saved


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return train_saved(tmp_path_factory.mktemp("reported"), "baseline-mtp")


def test_report_writes_a_page_beside_the_run_and_says_what_is_in_it(wmtp, run):
    result = wmtp("report", str(run), "--documents", "2", "--steps", "2")
    assert result.exit_code == 0, result.output
    *_, what, written = result.stdout.splitlines()
    assert what == "run: weights of 2 texts after steps 2"
    assert written.startswith(f"wrote {run / 'report.html'} (")
    assert (run / "report.html").read_text().startswith("<!DOCTYPE html>")


def test_report_as_json_without_tokens(wmtp, run, tmp_path):
    result = wmtp("report", str(run), "--no-xray", "--output", str(tmp_path / "r.html"), "--json")
    facts = json.loads(result.stdout)
    assert facts["path"] == str(tmp_path / "r.html")
    assert facts["num_bytes"] == (tmp_path / "r.html").stat().st_size
    assert facts["steps"] == [[]]


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["--steps", "two"], 2, "'two' is no step"),
        (["--steps", "9"], 1, "has no checkpoint of step 9; steps with one: 1, 2"),
        (["--documents", "0"], 2, "greater than or equal to 1"),
    ],
)
def test_what_cannot_be_shown_is_refused(wmtp, run, words, status, said):
    result = wmtp("report", str(run), *words)
    assert result.exit_code == status
    assert said in result.stderr
