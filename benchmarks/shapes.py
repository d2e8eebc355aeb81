"""Checkpoints of about 1.1B parameters with random weights, written for a benchmark and deleted after it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForCausalLM

from wmtp.metadata.file import write_metadata

_LLAMA = {
    "hidden_size": 2048, "num_hidden_layers": 22, "intermediate_size": 5632, "num_attention_heads": 32,
    "num_key_value_heads": 4, "vocab_size": 32000,
}  # fmt: skip
_EXPERTS = {
    "hidden_size": 1024, "num_hidden_layers": 6, "num_attention_heads": 16, "num_key_value_heads": 4, "head_dim": 64,
    "vocab_size": 32000,
}  # fmt: skip
SHAPES: dict[str, dict[str, Any]] = {
    "llama": _LLAMA,
    "gpt2": {"n_embd": 1536, "n_layer": 36, "n_head": 24, "vocab_size": 50257, "n_positions": 1024},
    "mistral": {**_LLAMA, "num_key_value_heads": 8},
    "mixtral": {**_EXPERTS, "num_local_experts": 8, "intermediate_size": 3584},
    "qwen3_moe": {**_EXPERTS, "num_experts": 64, "moe_intermediate_size": 512, "intermediate_size": 3584},
}
# How the Hub stores experts, one by one: names of gate, up and down below `experts.{e}.`.
_STORED_EXPERTS = {
    "mixtral": ("block_sparse_moe", ("w1", "w3", "w2")),
    "qwen3_moe": ("mlp", ("gate_proj", "up_proj", "down_proj")),
}
_SMALL_LLAMA = {"hidden_size": 256, "num_hidden_layers": 4, "intermediate_size": 512}
MADE = frozenset(_STORED_EXPERTS)  # whose parameters are made of several tensors
_QUICK = {"llama": _SMALL_LLAMA, "gpt2": {"n_embd": 192, "n_layer": 4}, "mistral": _SMALL_LLAMA}
_QUICK |= {
    "mixtral": {"num_hidden_layers": 1, "intermediate_size": 256},
    "qwen3_moe": {"num_hidden_layers": 1, "moe_intermediate_size": 64, "num_experts": 8},
}
_NOISE_VALUES = 1 << 20


@dataclass(frozen=True)
class Layout:
    """Two checkpoints that share their files.

    Attributes:
        plain: Loads as a transformers class.
        own: Loads as that class under another name, from a modeling.py.
    """

    plain: Path
    own: Path


def write_checkpoints(directory: Path, architecture: str, *, num_shards: int, quick: bool) -> Layout:
    """Write bf16 weights once, and two metadata.json around them."""
    layout = Layout(directory / "plain", directory / "own")
    for path in (layout.plain, layout.own):
        path.mkdir(parents=True)
    sizes = SHAPES[architecture] | (_QUICK[architecture] if quick else {})
    config = AutoConfig.for_model(architecture, **sizes, dtype="bfloat16", tie_word_embeddings=False)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    config.architectures = [type(model).__name__]
    config.save_pretrained(layout.plain)
    stored = dict(_stored(architecture, model))
    weights = _write_weights(layout.plain, stored, num_shards)
    for file in layout.plain.iterdir():
        os.link(file, layout.own / file.name)
    class_name = type(model).__name__
    code = f"from transformers import {class_name}\n\n\nclass OwnLM({class_name}):\n    pass\n"
    (layout.own / "modeling.py").write_text(code)
    files = ["config.json", weights]
    _declare(layout.plain, architecture, files, loader_type="huggingface", transformers_class="AutoModelForCausalLM")
    own = {"loader_type": "custom_mtp", "model_class_name": "OwnLM", "custom_module_file": "modeling.py"}
    _declare(layout.own, architecture, [*files, "modeling.py"], **own)
    return layout


def _stored(architecture: str, model: torch.nn.Module) -> Iterator[tuple[str, torch.Size]]:
    """What the files hold, by name: experts one by one, all else as the class has it."""
    place, (gate, up, down) = _STORED_EXPERTS.get(architecture, ("", ("", "", "")))
    for name, tensor in model.state_dict().items():
        start, is_expert, part = name.partition(".mlp.experts.")
        if not is_expert:
            yield (name.replace(".mlp.gate.", f".{place}.gate.") if place else name), tensor.shape
            continue
        for number, matrix in enumerate(tensor):
            pieces = {gate: matrix.chunk(2)[0], up: matrix.chunk(2)[1]} if part == "gate_up_proj" else {down: matrix}
            for piece, value in pieces.items():
                yield f"{start}.{place}.experts.{number}.{piece}.weight", value.shape


def _mapping(architecture: str) -> dict[str, Any]:
    """How metadata.json says what experts make."""
    if architecture not in _STORED_EXPERTS:
        return {}
    place, (gate, up, down) = _STORED_EXPERTS[architecture]
    stacked = {
        part: {"stack": 0, "each": "e", "of": f"model.layers.{{i}}.{place}.experts.{{e}}.{part}.weight"}
        for part in (gate, up, down)
    }
    start = "model.layers.{i}.mlp.experts"
    both = {"concatenate": 1, "of": [stacked[gate], stacked[up]]}
    renamed = {} if place == "mlp" else {rf"{place}\.gate": "mlp.gate"}
    return {
        "key_transforms": renamed,
        "tensors": {f"{start}.gate_up_proj": both, f"{start}.down_proj": stacked[down]},
    }


def _write_weights(directory: Path, shapes: dict[str, torch.Size], num_shards: int) -> str:
    noise = (torch.randn(_NOISE_VALUES, generator=torch.Generator().manual_seed(0)) * 0.02).bfloat16()
    tensors = {n: noise.repeat(-(-s.numel() // len(noise)))[: s.numel()].view(s) for n, s in shapes.items()}
    names = list(tensors)
    if num_shards == 1:
        save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
        return "model.safetensors"
    weight_map = {}
    for number in range(num_shards):
        held = names[number::num_shards]
        file = f"model-{number + 1:05d}-of-{num_shards:05d}.safetensors"
        save_file({name: tensors[name] for name in held}, directory / file, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(held, file)
    total = sum(tensor.nbytes for tensor in tensors.values())
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index))
    return "model.safetensors.index.json"


def _declare(directory: Path, architecture: str, files: list[str], **strategy: Any) -> None:
    metadata = {
        "wmtp_type": "base_model",
        "training_algorithm": "baseline",
        "base_architecture": architecture,
        "storage_version": "2.0",
        "loading_strategy": {**strategy, "required_files": files, "state_dict_mapping": _mapping(architecture)},
        "algorithm_compatibility": [],
    }
    write_metadata(directory, metadata)
