"""What plan says of several processes: shares, what is whole, bandwidth, and what cannot be asked."""

import json
import math

import pytest

from checkpoints import change_config, write_mtp_checkpoint
from tiny_models import tiny_mtp
from tiny_tokenizer import write_code_file

MODEL = tiny_mtp("llama", 3, "transformer", vocab_size=130)
WIDTH, VOCAB, LAYERS = 32, 130, 4  # two of the trunk, one of each further head
LAYER = sum(parameter.numel() for parameter in MODEL.heads["2"].parameters())
ROOT = 2 * VOCAB * WIDTH + WIDTH  # embedding, unembedding, norm


@pytest.fixture
def plan(wmtp, tmp_path):
    """Plan a run of several processes; returns the result of the command."""
    write_mtp_checkpoint(tmp_path / "base", MODEL)
    write_code_file(tmp_path / "code.py")
    paths = {"models": {"base": [str(tmp_path / "base")]}, "output_dir": str(tmp_path)}
    (tmp_path / "config.json").write_text(json.dumps({"paths": paths, "devices": {"device": "cpu"}}))
    train = {"algo": "baseline-mtp", "num_train_epochs": 1, "per_device_train_batch_size": 1}
    data = {"train": {"files": ["code.py"], "max_length": 16}}
    recipe = {"run": {"name": "run"}, "data": data, "train": {**train, "gradient_accumulation_steps": 2}}
    (tmp_path / "recipe.json").write_text(json.dumps(recipe))
    settings = ["plan", "--config", tmp_path / "config.json", "--recipe", tmp_path / "recipe.json"]
    return lambda *words: wmtp(*settings, *words)


def scale(result):
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)["scale"]


def test_shares_are_cut_along_the_first_dimension(plan):
    found = scale(plan("--json", "--world-size", 4, "train.sharding=fsdp"))
    matrices = [tuple(parameter.shape) for parameter in MODEL.parameters()]
    own = sum(math.ceil(shape[0] / 4) * math.prod(shape[1:]) for shape in matrices)
    assert found["memory"]["weights"] == found["memory"]["gradients"] == 4 * own
    assert found["memory"]["optimizer"] == 8 * own
    assert found["read"] == {"sharded": 4 * own, "replicated": 0, "node": 4 * sum(map(math.prod, matrices))}
    assert found["memory"]["gathered"] == 4 * (ROOT + 2 * LAYER)
    assert found["memory"]["exchange"] == 4 * (ROOT + LAYER) + 4 * max(ROOT, LAYER)


def test_in_bfloat16_what_is_gathered_is_half_and_shards_are_not(plan):
    full = scale(plan("--json", "--world-size", 2, "train.sharding=fsdp"))
    half = scale(plan("--json", "--world-size", 2, "train.sharding=fsdp", "devices.dtype=bfloat16"))
    assert half["memory"]["weights"] == full["memory"]["weights"]
    assert half["memory"]["gathered"] == full["memory"]["gathered"] / 2
    assert half["checkpoint"]["weights"] == full["checkpoint"]["weights"] / 2
    assert half["checkpoint"]["optimizer_state"] == full["checkpoint"]["optimizer_state"]


def test_without_shards_every_process_has_and_reads_everything(plan):
    alone, four = (scale(plan("--json", "--world-size", count)) for count in (1, 4))
    total = 4 * (ROOT + LAYERS * LAYER)
    assert alone["memory"]["weights"] == four["memory"]["weights"] == total
    assert (alone["memory"]["exchange"], four["memory"]["exchange"]) == (0, total)
    assert four["read"] == {"sharded": 0, "replicated": total, "node": total}


def test_what_stands_still_has_no_gradients_and_keeps_no_activations(plan):
    everything = scale(plan("--json", "--world-size", 2))
    heads = scale(plan("--json", "--world-size", 2, "train.trainable=heads"))
    assert heads["memory"]["gradients"] == heads["memory"]["exchange"] == 4 * 2 * LAYER
    assert heads["memory"]["weights"] == everything["memory"]["weights"]
    assert heads["memory"]["activations"] < everything["memory"]["activations"] * 0.6
    fewer = scale(plan("--json", "--world-size", 2, "mtp.horizon=2"))
    assert everything["memory"]["gradients"] - fewer["memory"]["gradients"] == 4 * LAYER


def test_recomputing_keeps_one_layer_and_what_goes_into_each(plan):
    kept = scale(plan("--json", "--world-size", 2))["memory"]["activations"]
    again = scale(plan("--json", "--world-size", 2, "train.gradient_checkpointing=true"))["memory"]["activations"]
    assert kept / 3 < again < kept / 1.5


def test_a_machine_reads_what_its_processes_read_and_no_more(plan):
    one, two = (
        scale(plan("--json", "--world-size", 4, "--nodes", nodes, "train.sharding=fsdp"))["read"] for nodes in (1, 2)
    )
    assert one["sharded"] == two["sharded"]
    assert one["node"] / 2 <= two["node"] <= 2 * two["sharded"]


def test_seconds_follow_from_the_bandwidth(plan):
    found = scale(plan("--json", "--world-size", 2, "--bandwidth", "1kB/s", "train.sharding=fsdp"))
    total = sum(parameter.nbytes for parameter in MODEL.parameters())
    assert found["checkpoint"]["written"] == 2 * 3 * total  # weights and two moments, gathered and then written
    assert found["seconds"] == {"load": total / 1000, "save": 6 * total / 1000}
    assert scale(plan("--json", "--world-size", 2, "train.save_optimizer=false"))["checkpoint"]["written"] == total


def test_an_epoch_has_fewer_steps_the_more_processes_there_are(plan):
    rows = json.loads(plan("--json").stdout)["data"]["rows"]
    steps = [scale(plan("--json", "--world-size", count)) for count in (1, 4)]
    assert [(each["steps"], each["step_rows"]) for each in steps] == [
        (math.ceil(rows / 2), 2),
        (math.ceil(rows / 8), 8),
    ]


def test_a_person_reads_memory_reading_and_checkpoints(plan):
    words = ["--world-size", 4, "--nodes", 2, "--bandwidth", "2GB/s", "train.sharding=fsdp"]
    lines = plan(*words).stdout.splitlines()
    start = lines.index("4 processes on 2 machines, the model in shards")
    assert lines[start + 1].startswith("  memory of a process: ")
    assert any(line.startswith("  read by a process: ") and "by a machine: " in line for line in lines)
    assert any(line.startswith("  at 2.0 GB a second: 0.0 s to load, ") for line in lines)
    assert not any(line.startswith("memory while training") for line in lines)
    alone = plan("train.sharding=fsdp").stdout
    assert "'wmtp plan --world-size N' shows what each of N processes has" in alone


def test_a_model_of_unknown_width_is_planned_without_activations(plan, tmp_path):
    change_config(tmp_path / "base", hidden_size=None)
    found = scale(plan("--json", "--world-size", 2))
    assert "activations" not in found["memory"]
    assert found["notes"] == ["activations are not counted: config.json does not say how wide the model is"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--nodes", 2], "--nodes and --bandwidth say more of --world-size: give that too"),
        (["--bandwidth", "1GB/s"], "--nodes and --bandwidth say more of --world-size: give that too"),
        (["--world-size", 3, "--nodes", 2], "3 processes cannot be shared out evenly to 2 machines"),
        (["--world-size", 2, "--bandwidth", "2GB"], "'2GB' is no bandwidth; write a size and /s, such as 2GB/s"),
        (["--world-size", 2, "--bandwidth", "0GB/s"], "'0GB/s' is no bandwidth"),
        (["--world-size", 0], "'--world-size'"),
    ],
)
def test_what_cannot_be_asked_is_wrong_usage(plan, words, said):
    result = plan(*words)
    assert (result.exit_code, said in " ".join(result.stderr.split())) == (2, True)
