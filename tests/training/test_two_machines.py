"""Two agents of torchrun, as on two machines, and what their run writes."""

import json
import os
import socket
import subprocess
import sys

import pytest
from safetensors.torch import load_file

from checkpoints import write_mtp_checkpoint
from tiny_models import tiny_mtp
from tiny_tokenizer import write_code_file

TRAIN = [sys.executable, "-m", "wmtp.cli.main", "train", "--config", "config.json", "--recipe", "recipe.json"]


@pytest.fixture
def settings(tmp_path):
    """A small run, whose settings stand in a directory that both machines see."""
    base = write_mtp_checkpoint(tmp_path / "base", tiny_mtp("llama", 3, "transformer", vocab_size=128))
    for number in range(4):
        write_code_file(tmp_path / f"{number}.py", repeats=number + 1)
    paths = {"models": {"base": [str(base)]}, "output_dir": "runs"}
    config = {"paths": paths, "devices": {"device": "cpu"}, "tracking": {"report_to": []}}
    train = {"algo": "baseline-mtp", "learning_rate": 1e-2, "max_steps": 3, "save_steps": 2, "optim": "sgd"}
    train |= {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 1}
    data = {"train": {"files": ["*.py"], "max_length": 32}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "recipe.json").write_text(json.dumps({"run": {"name": "run"}, "data": data, "train": train}))
    return tmp_path


def start(directory, *words):
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [*TRAIN, *words]
    return subprocess.Popen(command, cwd=directory, env=environment, stderr=subprocess.PIPE, text=True)


def finish(process):
    _, told = process.communicate(timeout=900)
    assert process.returncode == 0, told


@pytest.mark.slow
@pytest.mark.parametrize("sharding", ["none", "fsdp"])
def test_two_machines_write_what_one_process_writes(settings, sharding):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    meeting = ["--rdzv-backend", "c10d", "--rdzv-endpoint", f"127.0.0.1:{port}", "--rdzv-id", "run"]
    words = ["--", "--nnodes", "2", "--nproc-per-node", "1", *meeting]
    agents = [start(settings, f"train.sharding={sharding}", *words) for _ in range(2)]
    for agent in agents:
        finish(agent)
    finish(start(settings, "run.name=alone", "train.per_device_train_batch_size=4"))
    for name in ("step-2", "final"):
        found, expected = (load_file(settings / "runs" / run / name / "model.safetensors") for run in ("run", "alone"))
        assert max((found[key] - expected[key]).abs().max() for key in expected) < 1e-5
