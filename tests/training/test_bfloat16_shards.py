"""Runs in shards that compute in bfloat16 and keep float32: what they learn, what they save, and going on with them."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file

import wmtp
from run_files import RunFiles, contents
from shard_runs import run_shards

ALGORITHMS = ["critic-wmtp", *(pytest.param(name, marks=pytest.mark.slow) for name in ("baseline-mtp", "rho1-wmtp"))]


def in_bfloat16(files, *allowed):
    """Train in two processes; returns the directory of the run."""
    config = json.loads((files.directory / "config.json").read_text())
    config["paths"]["output_dir"], config["devices"]["dtype"] = str(files.run("half").parent), "bfloat16"
    recipe = json.loads((files.directory / "recipe.json").read_text())
    recipe["train"] |= {"sharding": "fsdp", "per_device_train_batch_size": 1}
    run_shards(files.directory, config, recipe, *allowed)
    return files.run("half")


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_what_is_computed_in_bfloat16_follows_float32_and_goes_on_bit_for_bit(tmp_path, algorithm):
    files = RunFiles(tmp_path, algorithm, dropout=0.0, train={"optim": "adamw_torch"})
    expected = wmtp.train(*files.settings("whole"))
    run = in_bfloat16(files)
    found = json.loads((tmp_path / "result.json").read_text())
    # Of 8 bits each product keeps a rounding of 0.2 %; Adam's first steps make of small differences larger ones.
    assert losses(found["initial_metrics"]) == pytest.approx(losses(expected.initial_metrics), rel=0.01)
    assert losses(found["final_metrics"]) == pytest.approx(losses(expected.final_metrics), rel=0.03)
    ended = without_receipts(run)
    for name in ("step-6", "final"):
        shutil.rmtree(run / name)
    in_bfloat16(files, "run.name")
    assert without_receipts(run) == ended


def losses(metrics):
    return {name: value for name, value in metrics.items() if name.startswith("eval_ce_")}


def without_receipts(run):
    """Every file but for what was read: of a checkpoint, that is half of what it is of a float32 model."""
    return {name: content for name, content in contents(run).items() if not name.endswith("receipt.json")}


def test_checkpoints_are_in_bfloat16_and_keep_beside_them_what_that_rounds(tmp_path):
    files = RunFiles(tmp_path, "baseline-mtp", dropout=0.0, train={"optim": "sgd", "max_steps": 3})
    run = in_bfloat16(files)
    model = load_file(run / "step-2" / "model.safetensors")
    kept = load_file(run / "step-2" / "training_state" / "optimizer.safetensors")
    assert {value.dtype for value in model.values()} == {torch.bfloat16}
    names = {name.removeprefix("unrounded."): value for name, value in kept.items() if name.startswith("unrounded.")}
    assert names.keys() == model.keys()
    assert all(value.dtype == torch.float32 for value in names.values())
    assert all(torch.equal(value.bfloat16(), model[name]) for name, value in names.items())
    assert any(not torch.equal(value, model[name].float()) for name, value in names.items())
