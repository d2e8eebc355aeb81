"""Tiny real checkpoints, written by transformers itself."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

import wmtp
from wmtp.storage.objects import ObjectStore
from wmtp.storage.uri import parse_uri

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


@dataclass(frozen=True)
class Place:
    """Loads a directory from one kind of store, as it is at that moment.

    Attributes:
        root: Address below which directories are put; None: they are loaded from where they are.
        cache: Whether files are kept on this machine.
    """

    root: str | None
    cache: bool = True

    def address(self, directory: Path) -> str:
        if self.root is None:
            return str(directory)
        address = f"{self.root}/{uuid.uuid4().hex}"
        store = ObjectStore(parse_uri(address), cache=None)
        for path in sorted(path for path in directory.rglob("*") if path.is_file()):
            store.put(path.relative_to(directory).as_posix(), path)
        return address

    def load(self, directory: Path, **options: Any) -> wmtp.LoadResult:
        return wmtp.load(self.address(directory), cache=self.cache, **options)

    def load_model(self, directory: Path, **options: Any) -> torch.nn.Module:
        return self.load(directory, **options).model

    def plan_load(self, directory: Path, **options: Any) -> wmtp.LoadPlan:
        return wmtp.plan_load(self.address(directory), cache=self.cache, **options)


@pytest.fixture(params=["directory", "memory", "memory-uncached", "s3", "s3-uncached"])
def place(request: pytest.FixtureRequest) -> Place:
    """Each kind of store in turn: what loads from one loads from all, and what is refused is refused by all."""
    kind, _, uncached = request.param.partition("-")
    if kind == "directory":
        return Place(None)
    bucket = request.getfixturevalue("s3_bucket") if kind == "s3" else "tests"
    return Place(f"{kind}://{bucket}", cache=not uncached)
