"""A model type that no code of wmtp knows: a modeling.py, odd tensor names, and a metadata.json. Nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from typer.testing import CliRunner

import wmtp
from tiny_tokenizer import CODE_LINES, build_tokenizer
from wmtp.cli.main import app
from wmtp.manifest import sha256_bytes

MODELING = '''
import torch
from torch import nn


class EchoLM(nn.Module):
    """A recurrent model, as far from a transformer as one can be; three heads that predict 1, 2 and 3 ahead."""

    def __init__(self, config):
        super().__init__()
        self.config = config
        self.tokens = nn.Embedding(config.symbols, config.breadth)
        self.memory = nn.GRU(config.breadth, config.breadth, batch_first=True)
        self.looks = nn.ModuleList(nn.Linear(config.breadth, config.symbols) for _ in range(config.n_future_tokens))
        self.register_buffer("scale", torch.full((1,), 0.5), persistent=False)

    def forward(self, input_ids):
        state, _ = self.memory(self.tokens(input_ids))
        return torch.stack([look(state * self.scale * 2) for look in self.looks], dim=2)
'''
RECIPE = """
run: {name: overfit, seed: 1}
data:
  train: {files: [one.txt], format: text, max_length: 64, packing: false}
  validation: {files: [one.txt]}
train:
  algo: baseline-mtp
  learning_rate: 0.01
  max_steps: 400
  per_device_train_batch_size: 1
  gradient_accumulation_steps: 1
  lr_scheduler_type: cosine
  eval_steps: 400
  save_steps: 400
"""


def write_echo_checkpoint(directory: Path) -> dict[str, str]:
    """Write the checkpoint under tensor names that only a regular expression can undo; returns the consent needed."""
    from transformers import PretrainedConfig

    directory.mkdir()
    build_tokenizer().save_pretrained(directory)
    config = {"model_type": "echo-rnn", "symbols": 128, "breadth": 96, "n_future_tokens": 3}
    namespace: dict = {"__name__": "echo"}
    exec(compile(MODELING, "modeling.py", "exec"), namespace)
    torch.manual_seed(0)
    model = namespace["EchoLM"](PretrainedConfig(**config))
    odd = {
        "net/" + name.replace("looks.", "look_").replace("memory.", "gru-"): t for name, t in model.state_dict().items()
    }
    save_file(odd, directory / "model.safetensors")
    (directory / "config.json").write_text(json.dumps(config))
    (directory / "modeling.py").write_text(MODELING)
    metadata = {
        "wmtp_type": "base_model",
        "training_algorithm": "mtp",
        "base_architecture": "echo-rnn",
        "storage_version": "2.0",
        "loading_strategy": {
            "loader_type": "custom_mtp",
            "model_class_name": "EchoLM",
            "custom_module_file": "modeling.py",
            "state_dict_mapping": {
                "remove_prefix": "net/",
                "key_transforms": {r"^look_(\d+)\.": r"looks.\1.", "^gru-": "memory."},
            },
            "required_files": [
                "config.json", "model.safetensors", "modeling.py", "tokenizer.json", "tokenizer_config.json",
            ],
        },
        "algorithm_compatibility": ["baseline-mtp"],
        "mtp": {"kind": "parallel_heads", "n_future_tokens": 3},
    }  # fmt: skip
    (directory / "metadata.json").write_text(json.dumps(metadata))
    return {"modeling.py": sha256_bytes(MODELING.encode())}


def test_a_type_that_no_code_knows_validates_loads_overfits_saves_and_loads_again(tmp_path):
    consent = write_echo_checkpoint(tmp_path / "echo")
    allow = f"modeling.py={consent['modeling.py']}"
    validated = CliRunner().invoke(app, ["validate", str(tmp_path / "echo"), "--allow-code", allow])
    assert validated.exit_code == 0, validated.output

    (tmp_path / "one.txt").write_text("".join(CODE_LINES))
    (tmp_path / "config.yaml").write_text("paths: {models: {base: echo}}\ndevices: {device: cpu}\n")
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    config, recipe = wmtp.load_config(tmp_path / "config.yaml"), wmtp.load_recipe(tmp_path / "recipe.yaml")
    result = wmtp.train(config, recipe, allow_code=consent)
    losses = [result.final_metrics[f"eval_ce_{k}"] for k in (1, 2, 3)]
    assert max(losses) < 0.1, losses

    reloaded = wmtp.load(result.final_checkpoint, allow_code=consent)
    ids = torch.arange(20).view(1, 20)
    assert torch.equal(reloaded.model(ids), result.model(ids))
    declared = wmtp.load_metadata(str(tmp_path / "echo")).loading_strategy.state_dict_mapping
    assert reloaded.metadata.loading_strategy.state_dict_mapping == declared  # the files are named as they were
    assert reloaded.metadata.base_architecture == "echo-rnn"
