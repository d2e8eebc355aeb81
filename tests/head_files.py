"""Tiny checkpoints of families with heads, of headers alone: every tensor is zeros."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tensor_files import tensors_as_bytes

HIDDEN = 4
_ATTENTION = ("input_layernorm", "post_attention_layernorm", *(f"self_attn.{part}_proj" for part in "qkvo"))
_DENSE = tuple(f"mlp.{part}_proj" for part in ("gate", "up", "down"))
_SPARSE = ("mlp.gate", *(f"mlp.experts.{i}.{part}_proj" for i in range(3) for part in ("gate", "up", "down")))


def block(start: str, *, sparse: bool = False) -> list[str]:
    """The names of an ordinary decoder layer."""
    return [f"{start}{part}.weight" for part in (*_ATTENTION, *(_SPARSE if sparse else _DENSE))]


def trunk(num_layers: int = 2, start: str = "model.") -> list[str]:
    """The names of a trunk."""
    layers = [name for i in range(num_layers) for name in block(f"{start}layers.{i}.")]
    return [f"{start}embed_tokens.weight", *layers, f"{start}norm.weight", "lm_head.weight"]


def after_trunk(module: int = 0, num_layers: int = 2, *, sparse: bool = False) -> list[str]:
    """A module as DeepSeek-V3 and GLM-4-MoE name it."""
    start = f"model.layers.{num_layers + module}."
    joins = [f"{start}{part}.weight" for part in ("enorm", "hnorm", "eh_proj", "shared_head.norm")]
    return [*joins, *block(start, sparse=sparse)]


def mtp(num_modules: int = 1, start: str = "mtp.") -> list[str]:
    """Modules as the Qwen family and Mellum name them."""
    joins = [f"{start}{part}.weight" for part in ("fc", "pre_fc_norm_embedding", "pre_fc_norm_hidden", "norm")]
    return [*joins, *(name for i in range(num_modules) for name in block(f"{start}layers.{i}."))]


def mimo(num_modules: int = 1) -> list[str]:
    """Modules as MiMo-7B names them."""
    joins = ("token_layernorm", "hidden_layernorm", "input_proj", "final_layernorm")
    starts = [f"model.mtp_layers.{i}." for i in range(num_modules)]
    return [name for start in starts for name in [*(f"{start}{part}.weight" for part in joins), *block(start)]]


def ernie() -> list[str]:
    """The module of ERNIE-4.5-MoE."""
    joins = [f"model.mtp_{part}.0.weight" for part in ("emb_norm", "hidden_norm", "linear_proj")]
    return [*joins, *block("model.mtp_block.0.")]


def write(directory: Path, names: Iterable[str], **config: Any) -> Path:
    """A checkpoint of these tensors and this config.json, without metadata.json."""
    directory.mkdir(exist_ok=True)
    projections = ("eh_proj.weight", "mtp.fc.weight", "input_proj.weight", "linear_proj.0.weight")
    shapes = {name: ("BF16", [HIDDEN, 2 * HIDDEN] if name.endswith(projections) else [1]) for name in names}
    (directory / "model.safetensors").write_bytes(tensors_as_bytes(shapes))
    write_config(directory, **{"num_hidden_layers": 2, "hidden_size": HIDDEN} | config)
    return directory


def write_config(directory: Path, **config: Any) -> None:
    """A config.json as it stands; None leaves a key out."""
    (directory / "config.json").write_text(json.dumps({k: v for k, v in config.items() if v is not None}))


def deepseek(directory: Path, names: Iterable[str] | None = None, **config: Any) -> Path:
    """A DeepSeek-V3 of two layers and a module, changed as asked."""
    own = {"model_type": "deepseek_v3", "architectures": ["DeepseekV3ForCausalLM"], "num_nextn_predict_layers": 1}
    names = [*trunk(), *after_trunk(sparse=True)] if names is None else names
    return write(directory, names, **own | {"topk_method": "noaux_tc"} | config)


def qwen3_5(directory: Path, names: Iterable[str] | None = None, **config: Any) -> Path:
    """A text-only Qwen3.5 with a module, changed as asked."""
    own = {"model_type": "qwen3_5_text", "architectures": ["Qwen3_5ForCausalLM"], "mtp_num_hidden_layers": 1}
    return write(directory, [*trunk(), *mtp()] if names is None else names, **own | config)


def qwen3_5_vl(directory: Path, names: Iterable[str] | None = None, text: Any = None, **config: Any) -> Path:
    """A Qwen3.5 of the vision-language class, changed as asked."""
    nested = {"num_hidden_layers": 2, "hidden_size": HIDDEN, "mtp_num_hidden_layers": 1, "vocab_size": 9}
    own = {"model_type": "qwen3_5", "architectures": ["Qwen3_5ForConditionalGeneration"], "text_config": nested}
    if text is not None:
        own["text_config"] = nested | text if isinstance(text, dict) else text
    names = [*trunk(start="model.language_model."), *mtp()] if names is None else names
    return write(directory, names, **own | {"num_hidden_layers": None, "hidden_size": None} | config)


def medusa(directory: Path, drop: Iterable[str] = (), extra: Iterable[str] = (), **config: Any) -> Path:
    """Two Medusa heads of one block each, as vLLM reads them, changed as asked."""
    shapes: dict[str, Any] = {f"blocks.{i}.layers.0.weight": ("BF16", [HIDDEN, HIDDEN]) for i in range(2)}
    shapes |= {f"lm_heads.{i}.weight": ("BF16", [9, HIDDEN]) for i in range(2)}
    shapes = {name: shape for name, shape in shapes.items() if name not in drop} | {n: ("BF16", [9]) for n in extra}
    directory.mkdir(exist_ok=True)
    (directory / "model.safetensors").write_bytes(tensors_as_bytes(shapes))
    own = {"model_type": "medusa", "architectures": ["MedusaModel"], "hidden_size": HIDDEN, "vocab_size": 9}
    write_config(directory, **own | {"num_heads": 2, "num_hidden_layers": 1} | config)
    return directory
