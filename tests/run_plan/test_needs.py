"""What a run needs, asked by plan, dry run and train alike before anything is read."""

import json
import sys

import pytest
import torch

from checkpoints import write_mtp_checkpoint
from tiny_models import tiny_mtp

CONFIG = "paths: {models: {base: ./nowhere}}\ndevices: {device: cpu}\ntracking: {report_to: []}\n"
RECIPE = "run: {name: tiny}\ndata: {train: {files: nothing.txt}}\ntrain: {algo: baseline-mtp, max_steps: 1}\n"
COMMANDS = [("plan",), ("train", "--dry-run"), ("train",)]
PLACES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
has_cuda = pytest.mark.skipif(torch.cuda.is_available(), reason="a machine without CUDA is needed")


@pytest.fixture
def ask(wmtp, tmp_path, monkeypatch):
    """Run a command on files that do not exist, so that reading any would be another error."""
    (tmp_path / "config.yaml").write_text(CONFIG)
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    for name in PLACES:
        monkeypatch.delenv(name, raising=False)

    def run(command, *changes):
        settings = ["--config", tmp_path / "config.yaml", "--recipe", tmp_path / "recipe.yaml"]
        result = wmtp(command[0], *settings, *changes, *command[1:])
        assert result.exit_code == 1
        assert "wmtp.cli" not in result.stderr
        return result.stderr

    return run


@pytest.fixture
def without(monkeypatch):
    """Make packages look as if they were not installed, as the import system knows it."""
    return lambda *names: [monkeypatch.setitem(sys.modules, name, None) for name in names]


@pytest.mark.parametrize("command", COMMANDS)
def test_an_optimizers_package_is_asked_for_before_anything_is_read(ask, without, command):
    without("bitsandbytes")
    said = ask(command, "train.optim=adamw_bnb_8bit")
    assert "error: train.optim is 'adamw_bnb_8bit', which needs the package 'bitsandbytes'" in said
    assert "python -m pip install bitsandbytes" in said
    assert "nowhere" not in said


@pytest.mark.parametrize("command", COMMANDS)
def test_the_package_of_adapters_is_asked_for_before_anything_is_read(ask, without, command):
    without("peft")
    said = ask(command, "train.trainable=lora")
    assert "error: train.trainable is 'lora', which needs the package 'peft', and that is not installed" in said
    assert "python -m pip install 'wmtp[lora]'" in said


@pytest.mark.parametrize(("bits", "package"), [("int8", "torchao"), ("nf4", "bitsandbytes")])
def test_the_package_of_fewer_bits_is_asked_for_where_the_model_is_used(ask, without, bits, package):
    without(package)
    words = [f"devices.quantize.ref={bits}", "train.algo=rho1-wmtp"]
    said = f"error: devices.quantize.ref is {bits!r}, which needs the package {package!r}, and that is not installed"
    assert said in ask(("plan",), *words)
    assert said in ask(("score",), *words)
    assert "nowhere" in ask(("plan",), words[0])


@pytest.mark.parametrize("optimizer", ["adamw_torch", "adamw_torch_fused", "adafactor", "sgd"])
def test_an_optimizer_of_torch_or_transformers_needs_nothing_more(ask, optimizer):
    assert "nowhere" in ask(("plan",), f"train.optim={optimizer}")


@pytest.mark.parametrize("command", COMMANDS)
def test_everything_that_is_missing_is_named_at_once(ask, without, command, monkeypatch):
    without("wandb", "mlflow", "bitsandbytes")
    monkeypatch.setenv("RANK", "0")
    changes = ["tracking.report_to=[wandb, mlflow]", "train.optim=adamw_bnb_8bit", "devices.dtype=float16"]
    said = ask(command, *changes)
    assert "error: 5 needs of this run are not met" in said
    for what in ("'wandb'", "'mlflow'", "'bitsandbytes'", "'float16'", "RANK is '0', and WORLD_SIZE"):
        assert sum(line.startswith("  ") and what in line for line in said.splitlines()) == 1


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("names", [{"RANK": "1"}, {"LOCAL_RANK": "0"}, {"WORLD_SIZE": "2", "RANK": "0"}])
def test_half_a_launch_is_refused_by_name(ask, monkeypatch, names, command):
    for name, value in names.items():
        monkeypatch.setenv(name, value)
    said = ask(command)
    assert said.startswith("error: ")
    assert "not set" in said
    assert all(name in said for name in names)


def test_variables_are_not_asked_for_where_torchrun_will_set_them(ask, monkeypatch):
    monkeypatch.setenv("RANK", "7")
    assert "nowhere" in ask(("train", "--dry-run", "--", "--nproc-per-node=2"))


def test_a_launch_in_several_processes_is_refused_once_before_they_start(ask, without):
    without("bitsandbytes")
    said = ask(("train", "--", "--nproc-per-node=2"), "train.optim=adamw_bnb_8bit")
    assert said.count("error: train.optim is 'adamw_bnb_8bit'") == 1


@pytest.mark.parametrize("command", COMMANDS[:2])
def test_what_the_trainer_and_its_usual_tracker_need_comes_with_the_extra_for_training(ask, without, command):
    without("tensorboard", "accelerate")
    said = ask(command, "tracking.report_to=tensorboard")
    assert "train needs the package 'accelerate', and that is not installed; install it" in said
    assert "install it (python -m pip install 'wmtp[train]'), or set tracking.report_to: []" in said


def test_training_asks_for_its_extra_before_torch_is_imported(ask, without):
    without("accelerate")
    said = ask(("train",))
    assert said.startswith("error: this needs the package 'accelerate', which is not installed\n")
    assert "hint: install it (python -m pip install 'wmtp[train]')\n" in said


@has_cuda
@pytest.mark.parametrize("command", COMMANDS[1:])
def test_a_device_that_is_not_there_is_refused_where_training_would_begin(ask, command):
    said = ask(command, "devices.device=cuda")
    assert "error: devices.device is 'cuda', and torch finds none" in said
    assert "hint: set devices.device: cpu" in said


@has_cuda
def test_a_numbered_device_that_is_not_there_has_two_faults(ask):
    said = ask(("train",), "devices.device=cuda:3")
    assert "'cuda:3', and training takes the first device that it sees" in said
    assert "'cuda:3', and torch finds none" in said


def test_a_plan_leaves_the_device_to_the_machine_that_trains_and_says_so(wmtp, tmp_path):
    write_mtp_checkpoint(tmp_path / "mtp", tiny_mtp(vocab_size=98))
    (tmp_path / "text.txt").write_text("some text")
    (tmp_path / "config.yaml").write_text(CONFIG.replace("nowhere", "mtp").replace("cpu", "cuda, dtype: bfloat16"))
    (tmp_path / "recipe.yaml").write_text(RECIPE.replace("nothing", "text"))
    settings = ["--config", tmp_path / "config.yaml", "--recipe", tmp_path / "recipe.yaml"]
    notes = json.loads(wmtp("plan", *settings, "--json").stdout)["notes"]
    expected = "asked when training begins: whether torch finds a device 'cuda' and whether it computes in bfloat16"
    assert notes == [expected]
    assert json.loads(wmtp("plan", *settings, "--json", "devices.device=cpu").stdout)["notes"] == []
