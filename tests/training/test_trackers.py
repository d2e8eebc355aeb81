"""What trackers keep of a run, and where."""

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import wmtp
from checkpoints import write_mtp_checkpoint
from tiny_models import tiny_mtp
from tiny_tokenizer import write_code_file

RECIPE = """
run: {name: run}
data: {train: {files: [code.py], max_length: 32}, validation: {files: [code.py]}}
train: {algo: baseline-mtp, max_steps: 2, per_device_train_batch_size: 4, gradient_accumulation_steps: 1,
        logging_steps: 1, eval_steps: 1, save_steps: 1}
"""
FIGURES = {"train/ce_1", "train/ce_2", "train/weight_mean", "train/weight_effective_share", "eval/ce_2"}


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Train with trackers in a directory of its own, and return the run's directory."""
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    for name in ("TENSORBOARD_LOGGING_DIR", "MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "WANDB_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    write_mtp_checkpoint(tmp_path / "base", tiny_mtp("llama", 2, "linear", vocab_size=128))
    write_code_file(tmp_path / "code.py", repeats=2)
    (tmp_path / "recipe.yaml").write_text(RECIPE)

    def train(*trackers, resume=False, changes=None, **tracking):
        shutil.rmtree(tmp_path / "runs/run/final", ignore_errors=True)  # as if the run had been killed before its end
        config = {"paths": {"models": {"base": "./base"}, "output_dir": "./runs"}, "devices": {"device": "cpu"}}
        config["tracking"] = {"report_to": trackers, "experiment": "tries", **tracking}
        (tmp_path / "config.yaml").write_text(json.dumps(config))
        overrides, allowed = [f"{key}={value}" for key, value in (changes or {}).items()], list(changes or {})
        recipe = wmtp.load_recipe(tmp_path / "recipe.yaml", overrides)
        result = wmtp.train(wmtp.load_config(tmp_path / "config.yaml"), recipe, resume=resume, allow_change=allowed)
        assert list((tmp_path / "elsewhere").iterdir()) == []
        return result.run_directory

    return train


def test_tensorboard_has_figures_of_each_head_and_the_plan_in_the_runs_own_directory(run):
    directory = run("tensorboard")
    assert not (directory / "runs").exists()
    kept = EventAccumulator(str(directory / "tensorboard"))
    kept.Reload()
    assert set(kept.Tags()["scalars"]) >= FIGURES
    assert len(kept.Scalars("eval/ce_2")) == 3  # the last validation too, which comes after the last step
    (plan,) = kept.Tensors("plan/text_summary")
    assert "baseline-mtp" in plan.tensor_proto.string_val[0].decode()


@pytest.mark.slow
def test_mlflow_has_it_all_in_a_file_beside_the_runs_and_a_run_that_goes_on_is_the_same_run(run):
    mlflow = pytest.importorskip("mlflow", reason="not installed: wmtp[tracking]")
    directory = run("mlflow")
    run("mlflow", resume=True, changes={"train.learning_rate": 1e-4})
    client = mlflow.MlflowClient(f"sqlite:///{directory.parent / 'mlflow.db'}")
    (kept,) = client.search_runs([client.get_experiment_by_name("tries").experiment_id])
    assert kept.info.run_id == json.loads((directory / "trackers.json").read_text())["mlflow"]
    assert (kept.info.run_name, kept.info.status) == ("run", "FINISHED")
    assert set(kept.data.metrics) >= {name.replace("train/", "") for name in FIGURES if name.startswith("train/")}
    assert [each.step for each in client.get_metric_history(kept.info.run_id, "ce_1")] == [1, 2, 2]
    plan = client.download_artifacts(kept.info.run_id, "plan.json")
    assert json.loads(Path(plan).read_text())["algorithm"] == "baseline-mtp"


@pytest.mark.slow
def test_wandb_keeps_figures_below_the_run_and_goes_on_under_the_same_name(run, monkeypatch):
    wandb = pytest.importorskip("wandb", reason="not installed: wmtp[tracking]")
    monkeypatch.setenv("WANDB_MODE", "offline")
    directory = run("wandb")
    wandb.finish()
    run("wandb", resume=True)
    wandb.finish()
    known = json.loads((directory / "trackers.json").read_text())["wandb"]
    kept = sorted((directory / "wandb").glob("offline-run-*"))
    assert len(kept) == 2
    assert all(each.name.endswith(known) for each in kept)


@pytest.mark.slow
@pytest.mark.usefixtures("run")
def test_trackio_keeps_the_figures_of_a_run_that_goes_on_together(tmp_path):
    pytest.importorskip("trackio", reason="not installed: wmtp[tracking]")
    config = {"paths": {"models": {"base": "./base"}, "output_dir": "./runs"}, "devices": {"device": "cpu"}}
    (tmp_path / "config.yaml").write_text(json.dumps({**config, "tracking": {"report_to": ["trackio"]}}))
    command = [sys.executable, "-m", "wmtp.cli.main", "train", "--config", tmp_path / "config.yaml"]
    # It reads where to write when it is imported.
    environment = {**os.environ, "TRACKIO_DIR": str(tmp_path / "trackio")}
    for words in ([], ["--resume"]):
        ask = [*command, "--recipe", tmp_path / "recipe.yaml", "--json", *words]
        done = subprocess.run(ask, env=environment, check=True, capture_output=True, text=True)
        assert json.loads(done.stdout)["steps"] == 2  # what trackio prints is not among it
        shutil.rmtree(tmp_path / "runs/run/final")
    (database,) = (tmp_path / "trackio").glob("*.db")
    with closing(sqlite3.connect(database)) as connection:
        rows = connection.execute("SELECT run_name, metrics FROM metrics").fetchall()
    assert {name for name, _ in rows} == {"run"}
    assert any("train/ce_2" in str(metrics) for _, metrics in rows)
