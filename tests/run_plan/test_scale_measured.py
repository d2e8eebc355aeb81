"""What plan says of several processes, held to what they then have in memory, read and write."""

import json
from pathlib import Path

import pytest
from safetensors.torch import load_file

from checkpoints import write_mtp_checkpoint
from launched import run_processes
from tiny_models import tiny_mtp
from tiny_tokenizer import write_code_file
from wmtp.run_plan.plan import plan_run
from wmtp.run_plan.scale import Processes
from wmtp.settings.config import Config
from wmtp.settings.recipe import Recipe

SCRIPT = Path(__file__).with_name("planned_process.py")
SLOW = pytest.mark.slow


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    model = tiny_mtp("llama", 3, "transformer", vocab_size=130, num_hidden_layers=3)
    return write_mtp_checkpoint(tmp_path_factory.mktemp("scale") / "base", model)


def planned_and_measured(directory, base, count, **training):
    """Plan a run of some processes and run it; returns the plan of a process, and what each has measured."""
    write_code_file(directory / "code.py")
    paths = {"models": {"base": [str(base)]}, "output_dir": str(directory / "runs")}
    config = {"paths": paths, "devices": {"device": "cpu"}, "tracking": {"report_to": []}}
    train = {"algo": "baseline-mtp", "max_steps": 2, "save_steps": 1, "optim": "adamw_torch"}
    train |= {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 2} | training
    recipe = {
        "run": {"name": "run"},
        "data": {"train": {"files": [str(directory / "code.py")], "max_length": 16}},
        "train": train,
    }
    (directory / "config.json").write_text(json.dumps(config))
    (directory / "recipe.json").write_text(json.dumps(recipe))
    plan = plan_run(Config.model_validate(config), Recipe.model_validate(recipe), {}, processes=Processes(count))
    run_processes(SCRIPT, directory, count=count)
    measured = [json.loads((directory / f"measured-{rank}.json").read_text()) for rank in range(count)]
    assert plan.scale is not None
    return plan.scale, measured


def tensor_bytes(path):
    return sum(tensor.nbytes for tensor in load_file(path).values())


RUNS = [
    pytest.param(1, {}, marks=SLOW),
    pytest.param(2, {}, marks=SLOW),
    (2, {"sharding": "fsdp"}),
    pytest.param(4, {"sharding": "fsdp"}, marks=SLOW),
    pytest.param(2, {"sharding": "fsdp", "trainable": "heads"}, marks=SLOW),
    pytest.param(2, {"trainable": "lora"}, marks=SLOW),
]


@pytest.mark.parametrize(("count", "training"), RUNS)
def test_memory_reading_and_checkpoints_are_as_planned(tmp_path, base, count, training):
    plan, measured = planned_and_measured(tmp_path, base, count, **training)
    for what in ("weights", "gradients", "optimizer"):
        assert max(facts[what] for facts in measured) == plan.memory[what]
    if training.get("sharding"):
        total = measured[0]["num_bytes"]
        kept = f"process 0 of {count} keeps {plan.read['sharded']:,} of the {total:,} bytes of parameters"
        assert any(note.startswith(kept) for note in measured[0]["notes"])
        assert (plan.read["replicated"], plan.read["node"]) == (0, total)
    else:
        assert plan.read["sharded"] == 0
        assert plan.read["replicated"] == plan.read["node"] == measured[0]["num_bytes"]
    saved = tmp_path / "runs" / "run" / "step-1"
    assert tensor_bytes(saved / "model.safetensors") == plan.checkpoint["weights"]
    optimizer = tensor_bytes(saved / "training_state" / "optimizer.safetensors")
    assert optimizer == pytest.approx(plan.checkpoint["optimizer_state"], rel=0.01)  # beside it counts of steps
