import json
import logging
import os
import subprocess
import sys
from itertools import product
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

import wmtp
from checkpoints import write_mtp_checkpoint
from tiny_models import tiny_mtp
from tiny_tokenizer import CODE_LINES, write_code_file
from wmtp.algorithms.baseline_mtp import BaselineMTP
from wmtp.errors import DataError, TrainingError
from wmtp.load_plan.receipt import LoadReceipt
from wmtp.manifest import sha256_bytes
from wmtp.publishing.publish import is_complete
from wmtp.settings.config import Config
from wmtp.settings.recipe import Recipe
from wmtp.training import preparation
from wmtp.training.checkpoints import CheckpointWriter, carried_files
from wmtp.training.run import train
from wmtp.training.saved_steps import published_steps

VOCAB = 128
TOKENS = torch.arange(2, 22).reshape(2, 10)

OWN_MODULE = """
from torch import nn


class TwoHeads(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.width)
        self.body = nn.GRU(config.width, config.width, batch_first=True)
        self.first = nn.Linear(config.width, config.vocab_size, bias=False)
        self.second = nn.Linear(config.width, config.vocab_size)
        self.first.weight = self.embedding.weight

    def forward(self, input_ids):
        import torch

        hidden, _ = self.body(self.embedding(input_ids))
        return torch.stack([self.first(hidden), self.second(hidden)], dim=2)
"""


def make_config(tmp_path, base, **changes):
    paths = {"models": {"base": [str(base)]}, "output_dir": str(tmp_path / "runs")}
    document = {"paths": paths, "devices": {"device": "cpu"}, "tracking": {"report_to": []}} | changes
    return Config.model_validate_json(json.dumps(document))


def unpacked(tmp_path):
    return {"train": {"files": [str(tmp_path / "data")], "max_length": 32, "packing": False}}


def make_recipe(tmp_path, **changes):
    data = tmp_path / "data"
    data.mkdir(exist_ok=True)
    for number in range(4):
        write_code_file(data / f"{number}.py", repeats=number + 1)
    document = {
        "run": {"name": "run"},
        "data": {"train": {"files": [str(data)], "max_length": 32}, "validation": {"fraction": 0.25}},
        "train": {
            "algo": "baseline-mtp",
            "learning_rate": 1e-2,
            "max_steps": 4,
            "per_device_train_batch_size": 4,
            "gradient_accumulation_steps": 1,
            "eval_steps": 2,
            "save_steps": 1,
            "logging_steps": 1,
        },
    }
    for section, fields in changes.items():
        document[section] = document.get(section, {}) | fields
    return Recipe.model_validate_json(json.dumps(document))


@pytest.fixture
def base(tmp_path):
    return write_mtp_checkpoint(tmp_path / "base", tiny_mtp("llama", 3, "linear", vocab_size=VOCAB))


def names_in(directory):
    return sorted(path.name for path in directory.iterdir())


def test_a_run_lowers_the_cross_entropy_of_every_head_and_publishes_a_checkpoint(tmp_path, base):
    result = train(make_config(tmp_path, base), make_recipe(tmp_path))
    for k in (1, 2, 3):
        assert result.final_metrics[f"eval_ce_{k}"] < result.initial_metrics[f"eval_ce_{k}"]
        assert 0 <= result.final_metrics[f"eval_top1_{k}"] <= 1
    assert result.steps == 4
    assert result.final_checkpoint == str(tmp_path / "runs" / "run" / "final")
    assert names_in(result.run_directory) == ["final", "run.json", "step-1", "step-2", "step-3"]
    assert all(is_complete(path) for path in result.run_directory.iterdir() if path.is_dir())
    card = (result.run_directory / "final" / "README.md").read_text()
    assert f"| 2 | cross-entropy, nats a token | {result.final_metrics['eval_ce_2']:.4f} |" in card
    assert "head 2: validation cross-entropy" in "\n".join(result.summary())
    json.dumps(result.to_dict())


@pytest.mark.parametrize(
    ("architecture", "tied", "head_type"),
    [*product(["llama", "gpt2"], [True, False], ["linear", "transformer"]), ("llama", True, "resblock")],
)
def test_a_saved_checkpoint_loads_with_bit_equal_outputs(tmp_path, head_type, tied, architecture):
    model = tiny_mtp(architecture, 3, head_type, vocab_size=VOCAB, tie_word_embeddings=tied)
    base = write_mtp_checkpoint(tmp_path / "base", model)
    result = train(make_config(tmp_path, base), make_recipe(tmp_path, train={"max_steps": 2}))
    trained = result.model(TOKENS).logits
    assert torch.equal(wmtp.load_model(result.final_checkpoint)(TOKENS).logits, trained)
    assert not torch.equal(model(TOKENS).logits, trained)


def write_own_module(directory, module=OWN_MODULE):
    """A checkpoint with its own modeling.py and other tensor names, which train and load by metadata alone."""
    from safetensors.torch import save_file
    from transformers import PretrainedConfig

    from tiny_tokenizer import build_tokenizer

    namespace = {"__name__": "own"}
    exec(module, namespace)
    torch.manual_seed(0)
    model = namespace["TwoHeads"](PretrainedConfig(vocab_size=VOCAB, width=16))
    directory.mkdir()
    tensors = {f"old.{name}": tensor for name, tensor in model.state_dict().items() if name != "first.weight"}
    save_file(tensors, directory / "model.safetensors")
    (directory / "modeling.py").write_text(module)
    (directory / "config.json").write_text(json.dumps({"model_type": "own", "vocab_size": VOCAB, "width": 16}))
    build_tokenizer().save_pretrained(directory)
    strategy = {
        "loader_type": "custom_mtp",
        "model_class_name": "TwoHeads",
        "custom_module_file": "modeling.py",
        "state_dict_mapping": {"remove_prefix": "old."},
        "required_files": ["config.json", "model.safetensors", "modeling.py", "tokenizer.json"],
    }
    document = {
        "wmtp_type": "base_model",
        "training_algorithm": "mtp",
        "base_architecture": "own",
        "storage_version": "2.0",
        "loading_strategy": strategy,
        "algorithm_compatibility": ["baseline-mtp"],
    }
    (directory / "metadata.json").write_text(json.dumps(document))
    return directory, {"modeling.py": sha256_bytes(module.encode())}


def test_a_checkpoints_own_module_trains_and_loads_again_with_the_same_consent(tmp_path):
    base, consent = write_own_module(tmp_path / "base")
    recipe = make_recipe(tmp_path, data=unpacked(tmp_path))
    result = train(make_config(tmp_path, base), recipe, allow_code=consent)
    assert result.final_metrics["eval_ce_2"] < result.initial_metrics["eval_ce_2"]
    loaded = wmtp.load(result.final_checkpoint, allow_code=consent)
    assert torch.equal(loaded.model(TOKENS), result.model(TOKENS))
    assert loaded.metadata.loading_strategy.state_dict_mapping.remove_prefix == "old."


def test_packing_is_refused_for_a_module_that_cannot_keep_documents_apart(tmp_path):
    base, consent = write_own_module(tmp_path / "base")
    with pytest.raises(TrainingError, match="has no argument position_ids") as caught:
        train(make_config(tmp_path, base), make_recipe(tmp_path), allow_code=consent)
    assert "data.train.packing: false" in caught.value.hint
    only_validation = unpacked(tmp_path) | {"validation": {"fraction": 0.25, "packing": True}}
    with pytest.raises(TrainingError, match="has no argument position_ids") as caught:
        train(make_config(tmp_path, base), make_recipe(tmp_path, data=only_validation), allow_code=consent)
    assert "data.validation.packing" in caught.value.hint
    assert not (tmp_path / "runs").exists()


def test_metadata_receipt_and_provenance_say_where_a_checkpoint_comes_from(tmp_path, base):
    result = train(make_config(tmp_path, base), make_recipe(tmp_path))
    step = result.run_directory / "step-2"
    metadata = wmtp.load_metadata(step)
    assert metadata.training_algorithm == "baseline"
    assert metadata.num_heads == 3
    provenance = metadata.provenance
    assert provenance["step"] == 2
    assert provenance["parent"]["uri"] == str(base)
    assert [file["path"] for file in provenance["parent"]["files"]] == ["config.json", "model.safetensors"]
    assert provenance["data"]["train"].startswith("sha256:")
    assert provenance["data"]["train"] != provenance["data"]["validation"]
    assert provenance["recipe"]["train"]["max_steps"] == 4
    assert set(provenance["versions"]) == {"wmtp", "torch", "transformers", "python"}
    receipt = json.loads((step / "receipt.json").read_text())
    assert receipt["uri"] == str(base)
    assert isinstance(result.receipt, LoadReceipt)
    assert (step / "tokenizer.json").read_bytes() == (base / "tokenizer.json").read_bytes()
    run = json.loads((result.run_directory / "run.json").read_text())
    assert run["recipe"]["run"]["name"] == "run"
    assert run["config"]["paths"]["models"]["base"] == [str(base)]


def test_only_the_newest_checkpoints_and_the_best_are_kept(tmp_path, base):
    recipe = make_recipe(tmp_path, train={"save_total_limit": 2})
    loaded = wmtp.load(base)
    writer = CheckpointWriter(tmp_path / "run", loaded, BaselineMTP(), recipe, {}, carried_files(loaded), bytes)
    kept = []
    for step, best_step in ((8, None), (9, 9), (10, 9), (11, 9), (12, 12)):
        writer.save_step(step, best_step)
        kept.append([path.name for path in published_steps(tmp_path / "run")])
    assert kept == [
        ["step-8"],
        ["step-8", "step-9"],
        ["step-9", "step-10"],
        ["step-9", "step-11"],
        ["step-11", "step-12"],
    ]
    assert names_in(tmp_path / "run") == ["step-11", "step-12"]


def test_the_export_is_the_next_token_head_for_transformers(tmp_path, base):
    result = train(make_config(tmp_path, base), make_recipe(tmp_path, run={"export_next_token": True}))
    plain = AutoModelForCausalLM.from_pretrained(result.next_token_checkpoint)
    model = wmtp.load_model(result.final_checkpoint)
    with torch.no_grad():
        assert torch.equal(plain(TOKENS).logits, model(TOKENS).logits[:, :, 0])


def test_the_same_recipe_gives_the_same_model_and_another_seed_another(tmp_path, base):
    recipes = [make_recipe(tmp_path, run={"name": name, "seed": seed}) for name, seed in (("a", 1), ("b", 1), ("c", 2))]
    models = [wmtp.load_model(train(make_config(tmp_path, base), r).final_checkpoint) for r in recipes]
    first, again, other = (model(TOKENS).logits for model in models)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_training_never_writes_into_the_base_model(tmp_path, base):
    before = {path.name: path.read_bytes() for path in base.iterdir()}
    train(make_config(tmp_path, base), make_recipe(tmp_path))
    assert {path.name: path.read_bytes() for path in base.iterdir()} == before


def test_prompt_and_completion_train_without_packing_too(tmp_path, base):
    lines = [{"text": f"Write number {n}.", "code": CODE_LINES[n % 4]} for n in range(12)]
    path = tmp_path / "mbpp.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    source = {"files": [str(path)], "format": "prompt_completion", "prompt": "text", "completion": "code"}
    recipe = make_recipe(tmp_path, data={"train": source | {"max_length": 64, "packing": False}})
    result = train(make_config(tmp_path, base), recipe)
    assert result.final_metrics["eval_ce_1"] < result.initial_metrics["eval_ce_1"]


def test_a_run_that_has_checkpoints_is_not_written_into(tmp_path, base):
    train(make_config(tmp_path, base), make_recipe(tmp_path, train={"max_steps": 1}))
    with pytest.raises(TrainingError, match="already holds checkpoints of a run: final") as caught:
        train(make_config(tmp_path, base), make_recipe(tmp_path))
    assert "run.name" in caught.value.hint


def test_a_run_that_stops_on_nan_leaves_its_last_checkpoint_untouched(tmp_path):
    breaks = OWN_MODULE.replace(
        "        import torch\n", "        import torch\n\n        self.steps += self.training\n"
    )
    breaks = breaks.replace("dim=2)", "dim=2) * (float('nan') if self.steps > 2 else 1.0)")
    breaks = breaks.replace("        self.config = config\n", "        self.config = config\n        self.steps = 0\n")
    base, consent = write_own_module(tmp_path / "base", breaks)
    with pytest.raises(TrainingError, match="step 3: the loss of micro-batch 1 of 1 is nan; stopped before") as caught:
        train(make_config(tmp_path, base), make_recipe(tmp_path, data=unpacked(tmp_path)), allow_code=consent)
    assert caught.value.faults
    assert {fault.rpartition("/")[2] for fault in caught.value.faults} <= {f"{number}.py'" for number in range(4)}
    run = tmp_path / "runs" / "run"
    assert names_in(run) == ["run.json", "step-1", "step-2"]
    assert is_complete(run / "step-2")


@pytest.mark.skipif(sys.platform != "linux", reason="threads are counted in /proc")
def test_two_processes_that_stop_on_nan_leave_no_thread_that_could_abort_them(tmp_path, port):
    model = tiny_mtp("llama", 3, "linear", vocab_size=VOCAB)
    torch.nn.init.constant_(model.trunk.model.norm.weight, 1e38)
    base, recipe = write_mtp_checkpoint(tmp_path / "base", model), make_recipe(tmp_path)
    files = [tmp_path / "config.json", tmp_path / "recipe.json"]
    for file, settings in zip(files, (make_config(tmp_path, base), recipe), strict=True):
        file.write_text(settings.model_dump_json(exclude_unset=True))
    command = [sys.executable, str(Path(__file__).with_name("failing_process.py")), *map(str, files)]
    places = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "PYTHONPATH": str(Path(__file__).parents[1])}
    shared = os.environ | {"WORLD_SIZE": "2", **places}
    ranks = [shared | {"RANK": rank, "LOCAL_RANK": rank} for rank in "01"]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, env=env) for env in ranks]
    told = [json.loads(process.communicate()[0]) for process in started]
    assert [process.returncode for process in started] == [0, 0]
    assert all("stopped before the optimizer step" in one["problem"] and one["threads"] == [] for one in told)


def test_recomputing_activations_changes_nothing(tmp_path):
    base = write_mtp_checkpoint(tmp_path / "base", tiny_mtp("llama", 3, "transformer", vocab_size=VOCAB))
    answers = []
    for name, recomputes in (("plain", False), ("recomputed", True)):
        recipe = make_recipe(tmp_path, run={"name": name}, train={"gradient_checkpointing": recomputes})
        answers.append(train(make_config(tmp_path, base), recipe).model(TOKENS).logits)
    assert torch.allclose(answers[0], answers[1], atol=1e-5)


def test_float16_weights_are_refused_rather_than_trained(tmp_path):
    model = tiny_mtp("llama", 2, "linear", vocab_size=VOCAB).half()
    base = wmtp.load(write_mtp_checkpoint(tmp_path / "base", model))
    with pytest.raises(TrainingError, match="stored in float16"):
        preparation._refuse_float16(base)


def test_more_heads_than_the_model_has_are_refused(tmp_path):
    base, consent = write_own_module(tmp_path / "base")
    with pytest.raises(TrainingError, match=r"mtp\.horizon is 4, and the base model has 2 prediction head"):
        train(make_config(tmp_path, base), make_recipe(tmp_path, mtp={"horizon": 4}), allow_code=consent)


def test_a_vocabulary_smaller_than_the_tokenizers_is_refused(tmp_path):
    base = write_mtp_checkpoint(tmp_path / "base", tiny_mtp("llama", 2, "linear", vocab_size=50))
    with pytest.raises(DataError, match=r"its tokenizer makes token \d+, and the model knows 50 tokens"):
        train(make_config(tmp_path, base), make_recipe(tmp_path))
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("devices", "fault"),
    [
        ({"device": "cpu", "dtype": "float16"}, "devices.dtype is 'float16'"),
        ({"device": "cuda:1"}, "devices.device is 'cuda:1'"),
    ],
)
def test_devices_that_cannot_train_are_refused(tmp_path, base, devices, fault):
    with pytest.raises(TrainingError, match=fault):
        train(make_config(tmp_path, base, devices=devices), make_recipe(tmp_path))


def test_without_a_terminal_progress_goes_to_the_log(tmp_path, base, caplog, capsys):
    with caplog.at_level(logging.INFO, logger="wmtp"):
        train(make_config(tmp_path, base), make_recipe(tmp_path))
    assert "step 1 of 4: loss" in caplog.text
    assert "step 4 of 4: validation: loss" in caplog.text
    assert "data.train: 3 documents" in caplog.text
    assert capsys.readouterr().out == ""


def test_tensorboard_files_are_written_below_the_run(tmp_path, base):
    config = make_config(tmp_path, base, tracking={"report_to": ["tensorboard"]})
    result = train(config, make_recipe(tmp_path, train={"max_steps": 1}))
    assert list(result.run_directory.rglob("events.out.tfevents.*"))


def test_documents_longer_than_the_models_positions_are_refused(tmp_path):
    base = write_mtp_checkpoint(tmp_path / "base", tiny_mtp("gpt2", 2, "linear", vocab_size=VOCAB, n_positions=16))
    with pytest.raises(
        DataError, match=r"it knows 16 positions, and the longest document of data\.train has 32 tokens"
    ) as refusal:
        train(make_config(tmp_path, base), make_recipe(tmp_path))
    assert refusal.value.hint == "set data.train.max_length: 16, or less"


def test_a_tracker_that_is_not_installed_is_named_before_anything_loads(tmp_path, base, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)  # what the import system says of a package that is not there
    config = make_config(tmp_path, base, tracking={"report_to": ["wandb"]})
    with pytest.raises(TrainingError, match=r"tracking\.report_to names 'wandb', and that package is not installed"):
        train(config, make_recipe(tmp_path))
