"""Native prediction heads by family: under which names released models keep them, and how config.json counts them.

A *module* is one sequential head: from the trunk's hidden state at t and the embedding of token t+1 it predicts token
t+2. The names are those of the released files, which every server reads; transformers hides or renames them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class HeadLayout:
    """How the tensors of native heads are named. In a template `{i}` is the module from 0, `{n}` the trunk's depth + i.

    Attributes:
        block: What the names of a module's decoder layer begin with.
        projection: From both inputs to the hidden size; a template without `{i}` or `{n}` is of all modules together.
        norms: The norms that a module cannot be without.
        extra: Beginnings of further names that some releases have: copies of the trunk's, or parts of a module.
        infix: What may stand in the middle of a name, and means nothing.
        repeats_trunk: The block has the names of the trunk's own layers with full attention.
        is_dense: The block's MLP is dense, whatever the trunk's are.
        hidden: Which hidden state of the trunk goes in; None: not known.
        order: The order in which the projection takes its inputs; None: not known.
        zeroes_first: The embedding at position 0 is taken for zero; None: not known.
    """

    block: str
    projection: str
    norms: tuple[str, ...]
    extra: tuple[str, ...] = ()
    infix: str | None = None
    repeats_trunk: bool = False
    is_dense: bool = False
    hidden: Literal["after the final norm", "before the final norm"] | None = "after the final norm"
    order: Literal["embedding, hidden", "hidden, embedding"] | None = "embedding, hidden"
    zeroes_first: bool | None = False


@dataclass(frozen=True)
class HeadFamily:
    """Models whose heads are named and counted alike.

    Attributes:
        name: The `model_type` in transformers, or the one that the release gives itself.
        layout: How the tensors are named.
        model_types: What `model_type` in config.json may be.
        architectures: Classes that tell the family where `model_type` does not.
        counts: Keys that may say how many modules there are, the family's own first; dots lead into objects.
        fixed_count: How many there are where no key says it.
        sublayers: Keys whose length says over how many layers one module is spread.
        shared_by: A key that, when true, lets one set of tensors stand for all modules.
        nested_trunk: What the trunk's names begin with where config.json has a `text_config`; None: not known.
    """

    name: str
    layout: HeadLayout
    model_types: tuple[str, ...]
    architectures: tuple[str, ...] = ()
    counts: tuple[str, ...] = ("num_nextn_predict_layers", "num_mtp_layers")
    fixed_count: int | None = None
    sublayers: tuple[str, ...] = ()
    shared_by: str | None = None
    nested_trunk: str | None = None


_AFTER_TRUNK = HeadLayout(
    block="model.layers.{n}.",
    projection="model.layers.{n}.eh_proj.weight",
    norms=(
        "model.layers.{n}.enorm.weight",
        "model.layers.{n}.hnorm.weight",
        "model.layers.{n}.shared_head.norm.weight",
    ),
    extra=("model.layers.{n}.embed_tokens.", "model.layers.{n}.shared_head.", "model.layers.{n}.rotary_emb."),
    repeats_trunk=True,
    zeroes_first=True,
)
_MTP = HeadLayout(
    block="mtp.layers.{i}.",
    projection="mtp.fc.weight",
    norms=("mtp.pre_fc_norm_embedding.weight", "mtp.pre_fc_norm_hidden.weight", "mtp.norm.weight"),
    extra=("mtp.embed_tokens.", "mtp.lm_head.", "mtp.shared_head.", "mtp.fc.", "mtp.rotary_emb."),
    repeats_trunk=True,
)
_MIMO = HeadLayout(
    block="model.mtp_layers.{i}.",
    projection="model.mtp_layers.{i}.input_proj.weight",
    norms=(
        "model.mtp_layers.{i}.token_layernorm.weight",
        "model.mtp_layers.{i}.hidden_layernorm.weight",
        "model.mtp_layers.{i}.final_layernorm.weight",
    ),
    repeats_trunk=True,
    hidden="before the final norm",
    order="hidden, embedding",
    zeroes_first=True,
)
_MIMO_V2 = HeadLayout("model.mtp.layers.{i}.", "", (), hidden=None, order=None, zeroes_first=None)
_ERNIE = HeadLayout(
    block="model.mtp_block.{i}.",
    projection="model.mtp_linear_proj.{i}.weight",
    norms=("model.mtp_emb_norm.{i}.weight", "model.mtp_hidden_norm.{i}.weight"),
    extra=("model.mtp_linear_proj.",),
    repeats_trunk=True,
    is_dense=True,
    zeroes_first=True,
)
_NEMOTRON_H = HeadLayout(
    block="mtp.layers.{i}.",
    projection="mtp.layers.0.eh_proj.weight",
    norms=("mtp.layers.0.enorm.weight", "mtp.layers.0.hnorm.weight"),
)
_STEP = HeadLayout(
    block="model.layers.{n}.",
    projection="model.layers.{n}.eh_proj.weight",
    norms=(
        "model.layers.{n}.enorm.weight",
        "model.layers.{n}.hnorm.weight",
        "model.layers.{n}.shared_head.norm.weight",
        "model.layers.{n}.shared_head.output.weight",
    ),
    infix="transformer.",
    hidden=None,
)
_LONGCAT = HeadLayout(
    block="model.mtp.layers.{i}.",
    projection="model.mtp.layers.{i}.eh_proj.weight",
    norms=("model.mtp.layers.{i}.enorm.m.weight", "model.mtp.layers.{i}.hnorm.m.weight", "model.mtp.norm.weight"),
    extra=("model.mtp.embed_tokens.",),
)
_INKLING = HeadLayout(
    block="model.mtp.layers.{i}.",
    projection="model.mtp.layers.{i}.input_proj.weight",
    norms=("model.mtp.layers.{i}.embed_norm.weight", "model.mtp.layers.{i}.hidden_norm.weight"),
    extra=("model.mtp.chain_norm.",),
    order="hidden, embedding",
)

_QWEN3_5 = HeadFamily(
    "qwen3_5",
    _MTP,
    ("qwen3_5", "qwen3_5_text", "qwen3_5_moe", "qwen3_5_moe_text"),
    counts=("mtp_num_hidden_layers", "num_mtp_layers"),
    nested_trunk="model.language_model.",
)
FAMILIES: tuple[HeadFamily, ...] = (
    # The class first: MiMo-7B has the model_type of its trunk, qwen2, or one that transformers does not know.
    HeadFamily("mimo", _MIMO, ("mimo",), ("MiMoForCausalLM",)),
    HeadFamily("mimo_v2_flash", _MIMO_V2, ("mimo_v2_flash",), ("MiMoV2FlashForCausalLM",), counts=(), fixed_count=3),
    HeadFamily("deepseek_v3", _AFTER_TRUNK, ("deepseek_v3",)),
    HeadFamily("deepseek_v32", _AFTER_TRUNK, ("deepseek_v32",)),
    HeadFamily("glm4_moe", _AFTER_TRUNK, ("glm4_moe",)),
    HeadFamily("glm_moe_dsa", _AFTER_TRUNK, ("glm_moe_dsa",)),
    HeadFamily("qwen3_next", _MTP, ("qwen3_next",)),
    _QWEN3_5,
    HeadFamily("mellum", _MTP, ("mellum",)),
    HeadFamily("exaone_moe", _MTP, ("exaone_moe",), shared_by="mtp_share_layers"),
    HeadFamily("exaone4_5", _MTP, ("exaone4_5", "exaone4_5_text"), shared_by="mtp_share_layers"),
    HeadFamily("ernie4_5_moe", _ERNIE, ("ernie4_5_moe",)),
    HeadFamily(
        "nemotron_h", _NEMOTRON_H, ("nemotron_h",), sublayers=("mtp_hybrid_override_pattern", "mtp_layers_block_type")
    ),
    HeadFamily("step3p5", _STEP, ("step3p5", "step3p7"), ("Step3p5ForCausalLM", "Step3p7ForConditionalGeneration")),
    HeadFamily("longcat_flash", _LONGCAT, ("longcat_flash",)),
    HeadFamily(
        "inkling",
        _INKLING,
        ("inkling_mm_model", "inkling_model", "inkling_text"),
        counts=("mtp_config.num_nextn_predict_layers", "num_mtp_layers"),
    ),
)


def family_of(config: Mapping[str, Any]) -> HeadFamily | None:
    """Return the family of a config.json, by its class where that tells more than `model_type`; None: no known one."""
    architectures = config.get("architectures")
    first = architectures[0] if isinstance(architectures, list) and architectures else None
    for family in FAMILIES:
        if isinstance(first, str) and first in family.architectures:
            return family
    model_type = config.get("model_type")
    return next((family for family in FAMILIES if model_type in family.model_types), None)


def family_named(name: str) -> HeadFamily:
    """Return the family of a name."""
    return next(family for family in FAMILIES if family.name == name)
