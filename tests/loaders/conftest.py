"""Tiny real checkpoints, written by transformers itself."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

SMALL = {
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 2, "vocab_size": 96, "n_positions": 64},
    "llama": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2},
    "mistral": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2},
}


def small_config(architecture: str, **changes: Any) -> transformers.PretrainedConfig:
    common = {} if architecture == "gpt2" else {"intermediate_size": 64, "vocab_size": 96}
    values = {**SMALL[architecture], **common, "initializer_range": 0.5, **changes}
    return transformers.AutoConfig.for_model(architecture, **values)


def write_metadata_for(directory: Path, architecture: str, **strategy: Any) -> None:
    weights = [name for name in ("model.safetensors", "model.safetensors.index.json") if (directory / name).exists()]
    declared = {
        "loader_type": "huggingface",
        "transformers_class": "AutoModelForCausalLM",
        "required_files": ["config.json", *weights],
        **strategy,
    }
    metadata = {
        "wmtp_type": "base_model",
        "training_algorithm": "baseline",
        "base_architecture": architecture,
        "storage_version": "2.0",
        "loading_strategy": declared,
        "algorithm_compatibility": ["baseline-mtp"],
    }
    (directory / "metadata.json").write_text(json.dumps(metadata))


@pytest.fixture
def saved(tmp_path: Path) -> Callable[..., tuple[Path, torch.nn.Module]]:
    """Saves a freshly initialised model as a checkpoint; returns its directory and the model itself."""

    def save(
        architecture: str,
        *,
        dtype: torch.dtype = torch.float32,
        shards: bool = False,
        auto_class: str = "AutoModelForCausalLM",
        strategy: dict[str, Any] | None = None,
        **config: Any,
    ) -> tuple[Path, torch.nn.Module]:
        torch.manual_seed(0)
        model = getattr(transformers, auto_class).from_config(small_config(architecture, **config), dtype=dtype).eval()
        model.save_pretrained(tmp_path, max_shard_size="20KB" if shards else "1GB")
        write_metadata_for(tmp_path, architecture, **(strategy or {}))
        return tmp_path, model

    return save
