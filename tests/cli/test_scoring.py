"""score."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from scoring_cases import kept, write_base, write_reference, write_reward
from tiny_tokenizer import CODE_LINES

CONFIG = """\
paths:
  models: {base: ./base, ref: ./ref, rm: ./rm}
  output_dir: .
devices: {device: cpu}
tracking: {report_to: []}
"""
RECIPE = """\
run: {name: tiny}
data: {train: {files: code.jsonl, max_length: 64}}
train: {algo: rho1-wmtp, max_steps: 2, gradient_accumulation_steps: 1, learning_rate: 1.0e-3}
"""


@pytest.fixture
def settings(tmp_path, edit_metadata):
    """The options of a run whose base, reference and reward models are tiny; scores are kept in `scores`."""
    write_base(tmp_path / "base")
    edit_metadata(tmp_path / "base", algorithm_compatibility=["baseline-mtp", "rho1-wmtp", "critic-wmtp"])
    write_reference(tmp_path / "ref")
    write_reward(tmp_path / "rm")
    lines = [{"text": line * (1 + n), "passed": n % 2} for line in CODE_LINES for n in range(4)]
    (tmp_path / "code.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (tmp_path / "config.yaml").write_text(CONFIG)
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    return ["--config", tmp_path / "config.yaml", "--recipe", tmp_path / "recipe.yaml"]


def test_score_says_what_was_computed_its_mean_and_where_it_is(wmtp, settings, tmp_path):
    result = wmtp("score", *settings)
    assert result.exit_code == 0, result.output
    first, second, third = result.stdout.splitlines()
    assert first.startswith("ref_nll: mean ")
    assert " nats a token, " in first
    assert f"figures by {tmp_path}/ref, computed in " in first
    assert second == f"  kept in {kept(tmp_path)[0]}"
    assert third.startswith("ref_nll on 1,906 tokens of 38 documents of data.train: reference ")


def test_a_second_score_reads_what_the_first_computed(wmtp, settings):
    (first,) = json.loads(wmtp("-q", "score", *settings, "--json").stdout)["scores"]
    (again,) = json.loads(wmtp("-q", "score", *settings, "--json").stdout)["scores"]
    assert (first["is_computed"], again["is_computed"]) == (True, False)
    assert (first["mean"], first["figures"], first["where"]) == (again["mean"], again["figures"], again["where"])
    assert "computed before, and read" in wmtp("score", *settings).stdout


def test_training_reads_what_score_computed(wmtp, settings, tmp_path):
    assert wmtp("score", *settings).exit_code == 0
    before = [path.stat().st_mtime_ns for path in kept(tmp_path)]
    result = wmtp("train", *settings)
    assert result.exit_code == 0, result.output
    assert f"nll by {tmp_path}/ref: found in {kept(tmp_path)[0]}" in result.stderr
    assert [path.stat().st_mtime_ns for path in kept(tmp_path)] == before


def test_a_base_model_that_cannot_be_compared_with_stops_nothing(wmtp, settings, tmp_path):
    path = tmp_path / "base" / "model.safetensors"
    data = path.read_bytes()
    path.write_bytes(data[:-1000] + b"\xff" * 1000)
    result = wmtp("score", *settings)
    assert result.exit_code == 0
    assert f"ref_nll: not compared with the base model: {tmp_path}/base: its loss" in result.stderr


def test_what_score_has_measured_of_the_reference_stands_in_the_plan(wmtp, settings, tmp_path):
    write_reference(tmp_path / "ref", initializer_range=1.0)
    untold = "ref_nll: whether the reference is better than the base model is not measured yet: 'wmtp score' tells"
    assert untold in wmtp("plan", *settings).stdout.splitlines()
    scored = wmtp("score", *settings).stdout.splitlines()
    start = f"warning: the reference {tmp_path}/ref is not better than the base model {tmp_path}/base: "
    assert scored[-1].startswith(start)
    planned = wmtp("plan", *settings).stdout.splitlines()
    assert untold not in planned
    assert set(scored[-2:]) < set(planned)
    (losses,) = json.loads(wmtp("plan", *settings, "--json").stdout)["references"]
    assert losses["reference_loss"] > losses["base_loss"]
    assert not losses["is_better"]


def test_rewards_are_scored_document_by_document(wmtp, settings, tmp_path):
    (found,) = json.loads(wmtp("-q", "score", *settings, "train.algo=critic-wmtp", "--json").stdout)["scores"]
    assert (found["name"], found["what"], found["model"]) == ("reward", "reward", str(tmp_path / "rm"))
    assert found["figures"] >= 16


def test_a_column_of_the_data_needs_no_model(wmtp, settings):
    words = ["train.algo=critic-wmtp", "critic.reward_column=passed", "data.train.max_length=512"]
    result = wmtp("score", *settings, *words)
    assert result.exit_code == 0, result.output
    assert (
        result.stdout == "reward: mean 0.5000 a document, from the key passed of 16 documents and pieces of documents\n"
    )


def test_baseline_has_nothing_to_score(wmtp, settings, tmp_path):
    result = wmtp("score", *settings, "train.algo=baseline-mtp")
    assert result.exit_code == 0
    assert result.stdout.startswith("nothing has to be scored before training: baseline-mtp")
    assert not (tmp_path / "scores").exists()
    assert json.loads(wmtp("score", *settings, "train.algo=baseline-mtp", "--json").stdout) == {
        "scores": [],
        "references": [],
    }


def test_a_missing_key_is_an_error_that_names_the_line(wmtp, settings, tmp_path):
    result = wmtp("score", *settings, "train.algo=critic-wmtp", "critic.reward_column=pased")
    assert result.exit_code == 1
    first, second, *_ = result.stderr.splitlines()
    assert first == "error: data.train: 16 faults"
    assert second.startswith(f"  {tmp_path}/code.jsonl:1: the key 'pased' is missing")
    assert "did you mean 'passed'?" in result.stderr


def test_two_processes_share_the_work_print_one_result_and_keep_what_one_computes(wmtp, settings, tmp_path):
    alone = wmtp("-q", "score", *settings, f"paths.output_dir={tmp_path}/alone", "--json")
    words = ["score", *map(str, settings), "--json", "--", "--nproc-per-node=2"]
    line = [sys.executable, "-m", "wmtp.cli.main", *words]
    threads = {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    done = subprocess.run(line, capture_output=True, text=True, check=False, env=os.environ | threads)
    assert done.returncode == 0, done.stderr
    assert ", shared by 2 processes" in done.stderr
    (one,), (two,) = (json.loads(text)["scores"] for text in (alone.stdout, done.stdout))
    assert (two["is_computed"], two["mean"]) == (True, one["mean"])
    assert len(json.loads(done.stdout)["references"]) == 1
    assert (kept(tmp_path)[0] / "scores.safetensors").read_bytes() == Path(
        one["where"], "scores.safetensors"
    ).read_bytes()


def test_what_the_processes_would_lack_is_refused_before_any_is_started(wmtp, settings):
    result = wmtp("score", *settings, "devices.device=cuda:1", "--", "--nproc-per-node=2")
    assert result.exit_code == 1
    assert result.stderr.startswith("error: ")
    assert "devices.device is 'cuda:1'" in result.stderr
