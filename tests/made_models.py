"""Tiny real models whose stored tensors are not their parameters, with the rules that make these of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import load_file, save_file

from checkpoints import metadata_document
from wmtp.metadata.file import write_metadata

_SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 96,
    "intermediate_size": 48,
    "initializer_range": 0.5,
}
_FURTHER: dict[str, dict[str, Any]] = {
    "llama": {"head_dim": 8},
    "mixtral": {"num_local_experts": 4},
    "qwen3_moe": {"num_experts": 4, "moe_intermediate_size": 16, "head_dim": 8, "mlp_only_layers": [1]},
}


def stacked(name: str) -> dict[str, Any]:
    """The stack of a tensor that each expert has."""
    return {"stack": 0, "each": "e", "of": name}


def merged_experts(place: str, gate: str, down: str, up: str) -> dict[str, Any]:
    """Rules for experts that are stored one by one, below a place in each layer."""
    stored = f"model.layers.{{i}}.{place}.experts.{{e}}"
    both = [stacked(f"{stored}.{gate}.weight"), stacked(f"{stored}.{up}.weight")]
    return {
        "model.layers.{i}.mlp.experts.gate_up_proj": {"concatenate": 1, "of": both},
        "model.layers.{i}.mlp.experts.down_proj": stacked(f"{stored}.{down}.weight"),
    }


MAPPINGS: dict[str, dict[str, Any]] = {
    "mixtral": {
        "key_transforms": {r"block_sparse_moe\.gate": "mlp.gate"},
        "tensors": merged_experts("block_sparse_moe", "w1", "w2", "w3"),
    },
    "qwen3_moe": {"tensors": merged_experts("mlp", "gate_proj", "down_proj", "up_proj")},
}


def save_model(directory: Path, kind: str, dtype: torch.dtype = torch.float32, **config: Any) -> dict[str, Any]:
    """Write a model as `save_pretrained` does, and return the values that `from_pretrained` gives it."""
    torch.manual_seed(0)
    chosen = transformers.AutoConfig.for_model(kind, **(_SIZES | _FURTHER.get(kind, {}) | config))
    transformers.AutoModelForCausalLM.from_config(chosen, dtype=dtype).save_pretrained(directory)
    declare(directory, kind, MAPPINGS.get(kind, {}))
    return values_of(transformers.AutoModelForCausalLM.from_pretrained(directory))


def values_of(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Every parameter by name."""
    return {name: parameter.detach() for name, parameter in model.named_parameters()}


def declare(directory: Path, kind: str, mapping: dict[str, Any]) -> None:
    """Write a metadata.json with a mapping."""
    from wmtp.metadata.schema import ModelMetadata

    strategy = {
        "loader_type": "huggingface",
        "transformers_class": "AutoModelForCausalLM",
        "required_files": ["config.json", "model.safetensors"],
        "state_dict_mapping": mapping,
    }
    document = metadata_document(strategy, base_architecture=kind)
    write_metadata(directory, ModelMetadata.model_validate(document).model_dump(exclude_none=True))


def rewrite(directory: Path, change: Any) -> None:
    """Change the stored tensors, given all by name."""
    path = directory / "model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file({name: value.contiguous().clone() for name, value in tensors.items()}, path, {"format": "pt"})


def same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> bool:
    """Whether all values are equal, bit for bit, in the same dtypes."""
    return found.keys() == expected.keys() and all(
        found[name].dtype == expected[name].dtype and torch.equal(found[name], expected[name]) for name in expected
    )
