"""What trackers keep of a run, and where."""

import json

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
        logging_steps: 1, eval_steps: 1}
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

    def train(*trackers, **tracking):
        config = {"paths": {"models": {"base": "./base"}, "output_dir": "./runs"}, "devices": {"device": "cpu"}}
        config["tracking"] = {"report_to": trackers, "experiment": "tries", **tracking}
        (tmp_path / "config.yaml").write_text(json.dumps(config))
        result = wmtp.train(wmtp.load_config(tmp_path / "config.yaml"), wmtp.load_recipe(tmp_path / "recipe.yaml"))
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
