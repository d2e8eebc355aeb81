"""Small runs in shards, and the same in one process: what they are told, and what came of them."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors.torch import load_file

from launched import run_processes
from tiny_tokenizer import write_code_file
from wmtp.settings.config import Config
from wmtp.settings.recipe import Recipe
from wmtp.training.run import train

TRAINING = Path(__file__).parent / "training"
FSDP = {"sharding": "fsdp"}


def settings(directory, base, name, *, export=True, **training):
    data = directory / "data"
    data.mkdir(exist_ok=True)
    for number in range(4):
        write_code_file(data / f"{number}.py", repeats=number + 1)
    paths = {"models": {"base": [str(base)]}, "output_dir": str(directory / "runs")}
    config = {"paths": paths, "devices": {"device": "cpu"}, "tracking": {"report_to": []}}
    train = {"algo": "baseline-mtp", "learning_rate": 1e-2, "max_steps": 4, "save_steps": 2, "optim": "sgd"}
    train |= {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 1, "logging_steps": 1} | training
    recipe = {
        "run": {"name": name, "export_next_token": export},
        "data": {"train": {"files": [str(data)], "max_length": 32}, "validation": {"fraction": 0.25}},
        "train": train,
    }
    return json.dumps(config), json.dumps(recipe)


def run_sharded(directory, base, *allowed, name="shards", count=2, **training):
    config, recipe = map(json.loads, settings(directory, base, name, **FSDP | training))
    run_shards(directory, config, recipe, *allowed, count=count)
    return json.loads((directory / "result.json").read_text())


def run_shards(directory, config, recipe, *allowed, count=2):
    """Train in several processes; what the first of them returns stands in `result.json`."""
    (directory / "config.json").write_text(json.dumps(config))
    (directory / "recipe.json").write_text(json.dumps(recipe))
    run_processes(TRAINING / "sharded_run.py", directory, *allowed, count=count)


def run_alone(directory, base, *allowed, name="alone", **training):
    config, recipe = settings(directory, base, name, **training)
    parsed = Config.model_validate_json(config), Recipe.model_validate_json(recipe)
    return train(*parsed, resume=bool(allowed), allow_change=allowed)


def weights(directory):
    return load_file(directory / "model.safetensors")


def is_close(found, expected, tolerance):
    assert found.keys() == expected.keys()
    return max((found[name] - expected[name]).abs().max() for name in expected) <= tolerance
