"""Runs of two processes: all stop in the same step, and one process goes on with them, or two with one's."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import wmtp
from run_files import RunFiles
from wmtp.errors import TrainingError
from wmtp.training.saved_steps import published_steps

BATCH = "train.per_device_train_batch_size"


def sections(batch):
    """Four rows a step, however many processes read them."""
    steps = {"gradient_accumulation_steps": 1, "max_steps": 6, "save_steps": 3, "optim": "sgd", "learning_rate": 1e-2}
    return {"train": {"per_device_train_batch_size": batch, **steps}}


@pytest.fixture
def files(tmp_path):
    made = RunFiles(tmp_path, "baseline-mtp", dropout=0.0, **sections(4))
    made.write_data(last="x = 1\n" * 200)  # enough for all steps: at the end of a pass two processes repeat rows
    return made


def by_two(files, port, place, signal_at):
    program = str(Path(__file__).with_name("one_of_two.py"))
    names = [str(files.directory / f"{name}.json") for name in ("config", "recipe")]
    command = [sys.executable, program, *names, str(files.directory / place), str(signal_at)]
    shared = os.environ | {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    ranks = [shared | {"RANK": rank, "LOCAL_RANK": rank} for rank in "01"]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env) for env in ranks]
    return [process.communicate(timeout=600)[0] for process in started]


def parameters(model):
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def test_a_signal_to_one_of_two_stops_both_and_one_process_goes_on_with_the_next_rows(files, port):
    expected = parameters(wmtp.train(*files.settings("alone")).model)
    files.write_recipe(**sections(2))
    assert by_two(files, port, "run", 4) == ["exit 143", "exit 143"]
    assert [path.name for path in published_steps(files.run("run"))] == ["step-3", "step-4"]
    files.write_recipe(**sections(4))
    with pytest.raises(TrainingError, match="another run") as caught:
        wmtp.train(*files.settings("run"), resume=True)
    assert caught.value.faults == (f"{BATCH}: 2 -> 4", "world_size: 2 -> 1")
    result = wmtp.train(*files.settings("run"), resume=True, allow_change=[BATCH, "world_size"])
    assert (parameters(result.model) - expected).abs().max() < 1e-6


def test_two_processes_go_on_with_a_run_of_one(files, port):
    expected = parameters(wmtp.train(*files.settings("run")).model)
    shutil.rmtree(files.run("run") / "final")
    files.write_recipe(**sections(2))
    assert by_two(files, port, "run", 0) == ["6", "6"]
    assert (parameters(wmtp.load_model(files.run("run") / "final")) - expected).abs().max() < 1e-6
