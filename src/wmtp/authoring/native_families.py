"""Families of released models with native heads: how their tensors are called, and how their modules compute.

Data for drafting. Loading reads what a metadata.json declares, and never this.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

# What most families do; each names what it does otherwise.
_COMMON: dict[str, Any] = {
    "hidden": "after_norm",
    "concatenation": "embedding_hidden",
    "first_embedding": "kept",
    "recycled": "after_norm",
    "input_norms": True,
    "final_norm": "own",
    "embedding": "shared",
    "unembedding": "shared",
}


@dataclass(frozen=True)
class Family:
    """One layout of native modules.

    Attributes:
        name: What people call it.
        model_types: `model_type` in config.json.
        parts: Begin of a tensor's name, as a pattern, and what it becomes. `{i}`: the module, from 0; `{n}`: its number
            among the layers of the trunk; `{k}`: its head.
        conventions: How modules compute, beside what is common.
        attention: The `layer_types` of a module's block, where the trunk has several and config.json does not say.
        trunk_type: The transformers model type of the trunk, where config.json's own is not known there.
        max_modules: How many modules the layout has names for.
    """

    name: str
    model_types: tuple[str, ...]
    parts: tuple[tuple[str, str], ...]
    conventions: Mapping[str, Any]
    attention: str | None = None
    trunk_type: str | None = None
    max_modules: int = 64


def _conventions(**changes: Any) -> Mapping[str, Any]:
    return MappingProxyType(_COMMON | changes)


def _beside_the_layers(*extras: tuple[str, str]) -> tuple[tuple[str, str], ...]:
    """A module is one more layer of the trunk, its own parts between those of the block."""
    start = r"^model\.layers\.{n}\."
    own = ((rf"{start}{before}\.", rf"heads.{{k}}.{after}.") for before, after in extras)
    return (*own, (start, "heads.{k}.mtp_block."))


_MTP_WITH_FC = (
    (r"^mtp\.layers\.{i}\.", "heads.{k}.mtp_block."),
    (r"^mtp\.fc\.", "heads.{k}.eh_proj."),
    (r"^mtp\.pre_fc_norm_embedding\.", "heads.{k}.enorm."),
    (r"^mtp\.pre_fc_norm_hidden\.", "heads.{k}.hnorm."),
    (r"^mtp\.norm\.", "heads.{k}.post_norm."),
)
_DEEPSEEK = _beside_the_layers(
    ("enorm", "enorm"),
    ("hnorm", "hnorm"),
    ("eh_proj", "eh_proj"),
    (r"shared_head\.norm", "post_norm"),
    (r"shared_head\.head", "unembedding"),
    ("embed_tokens", "embed_tokens"),
)

FAMILIES = (
    Family(
        "Qwen3.5, Qwen3.6, Qwen3-Next",
        ("qwen3_5", "qwen3_5_text", "qwen3_5_moe", "qwen3_5_moe_text", "qwen3_next"),
        _MTP_WITH_FC,
        _conventions(),
        attention="full_attention",
        max_modules=1,
    ),
    Family("Mellum", ("mellum",), _MTP_WITH_FC, _conventions(), attention="sliding_attention", max_modules=1),
    Family(
        "Inkling",
        ("inkling_text",),
        (
            (r"^model\.mtp\.layers\.{i}\.embed_norm\.", "heads.{k}.enorm."),
            (r"^model\.mtp\.layers\.{i}\.hidden_norm\.", "heads.{k}.hnorm."),
            (r"^model\.mtp\.layers\.{i}\.input_proj\.", "heads.{k}.eh_proj."),
            (r"^model\.mtp\.layers\.{i}\.transformer_block\.", "heads.{k}.mtp_block."),
            (r"^model\.mtp\.chain_norm\.", "shared_post_norm."),
        ),
        _conventions(concatenation="hidden_embedding", final_norm="none", bare_embedding=True),
        attention="hybrid",
    ),
    Family(
        "MiMo",
        ("mimo", "qwen2"),
        (
            (r"^model\.mtp_layers\.{i}\.token_layernorm\.", "heads.{k}.enorm."),
            (r"^model\.mtp_layers\.{i}\.hidden_layernorm\.", "heads.{k}.hnorm."),
            (r"^model\.mtp_layers\.{i}\.input_proj\.", "heads.{k}.eh_proj."),
            (r"^model\.mtp_layers\.{i}\.final_layernorm\.", "heads.{k}.post_norm."),
            (r"^model\.mtp_layers\.{i}\.", "heads.{k}.mtp_block."),
        ),
        _conventions(hidden="before_norm", concatenation="hidden_embedding", first_embedding="zeroed"),
        trunk_type="qwen2",
    ),
    Family(
        "ERNIE 4.5",
        ("ernie4_5_moe", "ernie4_5"),
        (
            (r"^model\.mtp_emb_norm\.{i}\.", "heads.{k}.enorm."),
            (r"^model\.mtp_hidden_norm\.{i}\.", "heads.{k}.hnorm."),
            (r"^model\.mtp_linear_proj\.{i}\.", "heads.{k}.eh_proj."),
            (r"^model\.mtp_block\.{i}\.", "heads.{k}.mtp_block."),
        ),
        _conventions(first_embedding="zeroed", final_norm="none"),
    ),
    Family("DeepSeek-V3", ("deepseek_v3",), _DEEPSEEK, _conventions(first_embedding="zeroed")),
    Family("GLM-4-MoE", ("glm4_moe",), _DEEPSEEK, _conventions(first_embedding="zeroed", recycled="before_norm")),
)


def family_of(model_type: object) -> Family | None:
    """Return the family whose layout a model type has, or None."""
    return next((family for family in FAMILIES if model_type in family.model_types), None)
