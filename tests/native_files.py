"""Tiny checkpoints of released models with native heads: names, configuration and layout as their makers write them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForImageTextToText, Exaone4_5_Config, Qwen3_5Config

from native_models import DEEP_FAMILIES, EXPERT_FAMILIES, FAMILIES, native
from tiny_tokenizer import build_tokenizer

_WITH_FC = [
    (r"heads\.2\.mtp_block\.", "mtp.layers.0."), (r"heads\.2\.eh_proj\.", "mtp.fc."),
    (r"heads\.2\.enorm\.", "mtp.pre_fc_norm_embedding."), (r"heads\.2\.hnorm\.", "mtp.pre_fc_norm_hidden."),
    (r"heads\.2\.post_norm\.", "mtp.norm."),
]  # fmt: skip
# From the names of our class to the files' names; {i}: the module, from 0; {n}: its number behind the trunk's layers.
_NAMES: dict[str, list[tuple[str, str]]] = {
    "qwen3_5": _WITH_FC,
    "mellum": _WITH_FC,
    "exaone4_5": _WITH_FC,
    "inkling": [
        (r"heads\.(\d)\.enorm\.", "model.mtp.layers.{i}.embed_norm."),
        (r"heads\.(\d)\.hnorm\.", "model.mtp.layers.{i}.hidden_norm."),
        (r"heads\.(\d)\.eh_proj\.", "model.mtp.layers.{i}.input_proj."),
        (r"heads\.(\d)\.mtp_block\.", "model.mtp.layers.{i}.transformer_block."),
        (r"shared_post_norm\.", "model.mtp.chain_norm."),
    ],
    "mimo": [
        (r"heads\.(\d)\.enorm\.", "model.mtp_layers.{i}.token_layernorm."),
        (r"heads\.(\d)\.hnorm\.", "model.mtp_layers.{i}.hidden_layernorm."),
        (r"heads\.(\d)\.eh_proj\.", "model.mtp_layers.{i}.input_proj."),
        (r"heads\.(\d)\.post_norm\.", "model.mtp_layers.{i}.final_layernorm."),
        (r"heads\.(\d)\.mtp_block\.", "model.mtp_layers.{i}."),
    ],
    "ernie": [
        (r"heads\.(\d)\.enorm\.", "model.mtp_emb_norm.{i}."), (r"heads\.(\d)\.hnorm\.", "model.mtp_hidden_norm.{i}."),
        (r"heads\.(\d)\.eh_proj\.", "model.mtp_linear_proj.{i}."),
        (r"heads\.(\d)\.mtp_block\.", "model.mtp_block.{i}."),
    ],
    "deepseek": [
        (r"heads\.(\d)\.(enorm|hnorm|eh_proj|embed_tokens)\.", r"model.layers.{n}.\2."),
        (r"heads\.(\d)\.post_norm\.", "model.layers.{n}.shared_head.norm."),
        (r"heads\.(\d)\.unembedding\.", "model.layers.{n}.shared_head.head."),
        (r"heads\.(\d)\.mtp_block\.", "model.layers.{n}."),
    ],
}  # fmt: skip


_NAMES |= dict.fromkeys(("qwen3_5_moe", "qwen3_next", "exaone_moe"), _WITH_FC)
_NAMES |= dict.fromkeys(("deepseek_moe", "glm4_moe", "deepseek_v32", "glm_moe_dsa", *DEEP_FAMILIES), _NAMES["deepseek"])


def file_name(family: str, name: str) -> str:
    """What a tensor of our class is called in the files of a family."""
    depth = DEEP_FAMILIES[family][1]["num_hidden_layers"] if family in DEEP_FAMILIES else 2
    for pattern, text in [*_NAMES[family], (r"trunk\.", "")]:
        if found := re.match(pattern, name):
            i = int(found[1]) - 2 if "{" in text else 0
            return found.expand(text.replace("{i}", str(i)).replace("{n}", str(depth + i))) + name[found.end() :]
    return name


def write_native(directory: Path, family: str, *, model: Any = None, **config: Any) -> Any:
    """Write a family's checkpoint without metadata.json, as its makers would; returns the model that it holds."""
    model = model or native(family)
    directory.mkdir()
    tied = getattr(model.trunk.config, "tie_word_embeddings", False)
    tensors = {
        file_name(family, name): value.clone().contiguous()
        for name, value in model.state_dict().items()
        if not (tied and name == "trunk.lm_head.weight")
    }
    tensors = dict(piece for each in tensors.items() for piece in _by_expert(*each))
    save_file(tensors, directory / "model.safetensors", {"format": "pt"})
    own = {"architectures": [type(model.trunk).__name__], "torch_dtype": "float32", "unknown_key": {"kept": [1]}}
    document = model.trunk.config.to_dict() | own | (FAMILIES | EXPERT_FAMILIES | DEEP_FAMILIES)[family][1] | config
    document["model_type"] = {"exaone4_5": "exaone4_5_text"}.get(family, document["model_type"])
    document.pop("declared_mtp", None)
    (directory / "config.json").write_text(json.dumps(document, indent=2))
    build_tokenizer().save_pretrained(directory)
    return model


def _by_expert(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """A tensor of all experts as released files have it: one tensor an expert, gate and up apart."""
    start, _, part = name.rpartition(".")
    if not start.endswith("mlp.experts"):
        yield name, value
        return
    for number, expert in enumerate(value):
        names = ("gate_proj", "up_proj") if part == "gate_up_proj" else (part,)
        for projection, piece in zip(names, expert.chunk(len(names)), strict=True):
            yield f"{start}.{number}.{projection}.weight", piece.clone().contiguous()


_SEEING = {"qwen3_5": Qwen3_5Config, "exaone4_5": Exaone4_5_Config}


def write_vision_language(directory: Path, family: str = "qwen3_5") -> Any:
    """A model of a family that sees, with a module; returns the model of its text."""
    text = native(family)
    vision = {"depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "out_hidden_size": 32}
    config = _SEEING[family](text_config=text.trunk.config.to_dict(), vision_config=vision)
    torch.manual_seed(0)
    made = AutoModelForImageTextToText.from_config(config)
    made.model.language_model.load_state_dict(text.trunk.model.state_dict())
    made.lm_head.load_state_dict(text.trunk.lm_head.state_dict())
    write_native(directory, family, model=text)
    modules = {name: value for name, value in load_file(directory / "model.safetensors").items() if "mtp." in name}
    save_file(made.state_dict() | modules, directory / "model.safetensors")
    document = config.to_dict() | {"architectures": [type(made).__name__], "unknown_key": {"kept": [1]}}
    counts = {key: value for key, value in FAMILIES[family][1].items() if key.startswith(("mtp_num", "num_nextn"))}
    document["text_config"] |= counts
    document["text_config"].pop("declared_mtp", None)
    (directory / "config.json").write_text(json.dumps(document))
    return text
