"""How the tensors of native heads become the parts of `NativeModule`, and how the modules compute, by family.

Data for drafting: loading reads what a metadata.json declares, and never this. What servers look for of the same
families, and which hidden state, order and first embedding they take, stands in `checkpoint.families`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from wmtp.checkpoint.families import HeadFamily


@dataclass(frozen=True)
class Drafting:
    """What a draft needs to know of a family.

    Attributes:
        parts: Begin of a tensor's name, as a pattern, and what it becomes. `{i}`: the module, from 0; `{n}`: its number
            among the layers of the trunk; `{k}`: its head.
        recycled: What the next module reads.
        final_norm: What the output of a module passes.
        bare_embedding: Whether the embedding is read without the norm that the trunk puts on it.
        attention: The `layer_types` of a module's block, where the trunk has several and config.json does not say.
        trunk_type: The transformers model type of the trunk, where config.json's own is not known there.
        max_modules: How many modules the layout has names for.
    """

    parts: tuple[tuple[str, str], ...]
    recycled: Literal["before_norm", "after_norm"] = "after_norm"
    final_norm: Literal["own", "none"] = "own"
    bare_embedding: bool = False
    attention: str | None = None
    trunk_type: str | None = None
    max_modules: int = 64


def _beside_the_layers(*own: tuple[str, str]) -> tuple[tuple[str, str], ...]:
    """A module is one more layer of the trunk, its own parts between those of the block."""
    start = r"^model\.layers\.{n}\."
    return (*((rf"{start}{before}\.", f"heads.{{k}}.{after}.") for before, after in own), (start, _BLOCK))


_BLOCK = "heads.{k}.mtp_block."
_WITH_FC = (
    (r"^mtp\.layers\.{i}\.", _BLOCK),
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
_INKLING = (
    (r"^model\.mtp\.layers\.{i}\.embed_norm\.", "heads.{k}.enorm."),
    (r"^model\.mtp\.layers\.{i}\.hidden_norm\.", "heads.{k}.hnorm."),
    (r"^model\.mtp\.layers\.{i}\.input_proj\.", "heads.{k}.eh_proj."),
    (r"^model\.mtp\.layers\.{i}\.transformer_block\.", _BLOCK),
    (r"^model\.mtp\.chain_norm\.", "shared_post_norm."),
)
_MIMO = (
    (r"^model\.mtp_layers\.{i}\.token_layernorm\.", "heads.{k}.enorm."),
    (r"^model\.mtp_layers\.{i}\.hidden_layernorm\.", "heads.{k}.hnorm."),
    (r"^model\.mtp_layers\.{i}\.input_proj\.", "heads.{k}.eh_proj."),
    (r"^model\.mtp_layers\.{i}\.final_layernorm\.", "heads.{k}.post_norm."),
    (r"^model\.mtp_layers\.{i}\.", _BLOCK),
)
_ERNIE = (
    (r"^model\.mtp_emb_norm\.{i}\.", "heads.{k}.enorm."),
    (r"^model\.mtp_hidden_norm\.{i}\.", "heads.{k}.hnorm."),
    (r"^model\.mtp_linear_proj\.{i}\.", "heads.{k}.eh_proj."),
    (r"^model\.mtp_block\.{i}\.", _BLOCK),
)

# By the names of `checkpoint.families`. One that is not here can be declared by hand.
DRAFTING: Mapping[str, Drafting] = {
    "qwen3_5": Drafting(_WITH_FC, attention="full_attention", max_modules=1),
    "qwen3_next": Drafting(_WITH_FC, attention="full_attention", max_modules=1),
    "mellum": Drafting(_WITH_FC, attention="sliding_attention", max_modules=1),
    "inkling": Drafting(_INKLING, final_norm="none", bare_embedding=True, attention="hybrid"),
    "mimo": Drafting(_MIMO, trunk_type="qwen2"),
    "ernie4_5_moe": Drafting(_ERNIE, final_norm="none"),
    "deepseek_v3": Drafting(_DEEPSEEK),
    "deepseek_v32": Drafting(_DEEPSEEK),
    "glm4_moe": Drafting(_DEEPSEEK, recycled="before_norm"),
    "glm_moe_dsa": Drafting(_DEEPSEEK),
    "exaone_moe": Drafting(_WITH_FC, attention="sliding_attention", max_modules=1),
    "exaone4_5": Drafting(_WITH_FC, attention="sliding_attention", trunk_type="exaone4", max_modules=1),
}

# Families whose modules no declaration describes, and what stands against it.
UNDRAFTED: Mapping[str, str] = {
    "mimo_v2_flash": (
        "a module's layer has sliding attention and a dense MLP, as no layer of the trunk has, and servers do not agree"
        " on the hidden state that it reads"
    ),
    "nemotron_h": "a module is spread over several layers, each an attention or an MLP alone",
    "step3p5": (
        "transformers has no causal LM of this trunk, and servers and transformers do not agree on the hidden state"
        " that a module reads"
    ),
    "longcat_flash": (
        "a module's layer has one attention and one dense MLP, where a layer of the trunk has two of each and experts"
    ),
}


@dataclass(frozen=True)
class Grown:
    """How a model without modules becomes one of a family.

    Attributes:
        family: Whose layout it gets.
        count: The key of config.json that says how many modules there are.
        architecture: The class that config.json has to name; None: the one that it names.
        is_untied: Whether the unembedding has to stand in the files as a tensor of its own.
    """

    family: str
    count: str
    architecture: str | None = None
    is_untied: bool = False


# By the model type of the trunk. Families whose blocks hold experts are not among them.
GROWN: Mapping[str, Grown] = {
    "qwen2": Grown("mimo", "num_nextn_predict_layers", "MiMoForCausalLM", is_untied=True),
    "qwen3_5_text": Grown("qwen3_5", "mtp_num_hidden_layers"),
}
_HEAD = re.compile(r"heads\.(\d+)\.")
_HIDDEN = {"after the final norm": "after_norm", "before the final norm": "before_norm"}


def conventions_of(family: HeadFamily, drafting: Drafting) -> dict[str, Any]:
    """Return how the modules of a family compute, as metadata.json declares it; without the layers of their blocks."""
    layout = family.layout
    assert layout.hidden is not None  # known of every family that is drafted
    assert layout.order is not None
    conventions = {
        "hidden": _HIDDEN[layout.hidden],
        "concatenation": layout.order.replace(", ", "_"),
        "first_embedding": "zeroed" if layout.zeroes_first else "kept",
        "recycled": drafting.recycled,
        "input_norms": True,
        "final_norm": drafting.final_norm,
        "embedding": "shared",
        "unembedding": "shared",
    }
    return conventions | ({"bare_embedding": True} if drafting.bare_embedding else {})


def released_name(drafting: Drafting, name: str, depth: int) -> str:
    """Return what a parameter of `NativeMTPForCausalLM` is called in the files of a family.

    Args:
        drafting: Of the family.
        name: In the class's state_dict.
        depth: Layers of the trunk.
    """
    found = _HEAD.match(name)
    if found is None:
        return name.removeprefix("trunk.")
    k = int(found[1])
    for pattern, part in drafting.parts:
        start = part.replace("{k}", str(k))
        if name.startswith(start):
            text = pattern.removeprefix("^").replace("\\", "")
            return text.replace("{i}", str(k - 2)).replace("{n}", str(depth + k - 2)) + name.removeprefix(start)
    return name
