"""Tiny models with native heads, one of each family's layout, and transformers' own modules with the same values."""

from __future__ import annotations

from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.modeling_layers import MtpModel

from tiny_models import VOCAB
from wmtp.models.native import NativeMTPForCausalLM

SIZES = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 64,
    "bos_token_id": 1,
    "eos_token_id": 0,
    "pad_token_id": 0,
}
_LATENT = {
    "moe_intermediate_size": 16, "n_routed_experts": 4, "n_shared_experts": 1, "num_experts_per_tok": 2, "n_group": 1,
    "topk_group": 1, "q_lora_rank": 16, "kv_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8,
    "v_head_dim": 8, "num_key_value_heads": 4,
}  # fmt: skip
_INDEXED = {"index_topk": 64, "index_head_dim": 8, "index_n_heads": 2}
_COMMON = {
    "hidden": "after_norm", "concatenation": "embedding_hidden", "first_embedding": "kept", "recycled": "after_norm",
    "input_norms": True, "final_norm": "own", "embedding": "shared", "unembedding": "shared",
}  # fmt: skip
_FURTHER = ("block_like", "bare_embedding", "trunk_class", "trunk_type")

# model_type, what config.json says beside the sizes, conventions beside the common ones.
FAMILIES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "qwen3_5": (
        "qwen3_5_text",
        {
            "layer_types": ["linear_attention", "full_attention"],
            "linear_num_key_heads": 2, "linear_num_value_heads": 2,
            "linear_key_head_dim": 8, "linear_value_head_dim": 8, "mtp_num_hidden_layers": 1,
        },
        {"block_like": [1]},
    ),
    "mellum": (
        "mellum",
        {
            "mlp_layer_types": ["dense"] * 2, "layer_types": ["sliding_attention", "full_attention"],
            "num_nextn_predict_layers": 1, "mtp_layer_types": ["full_attention"], "mtp_mlp_layer_types": ["dense"],
        },
        {"block_like": [1]},
    ),
    "inkling": (
        "inkling_text",
        {
            "mlp_layer_types": ["dense"] * 2, "layer_types": ["hybrid_sliding", "hybrid"], "num_mtp_layers": 2,
            "swa_num_attention_heads": 4, "swa_num_key_value_heads": 2, "swa_head_dim": 8, "rel_extent": 64,
            "logits_mup_width_multiplier": 2.0,
        },
        {"block_like": [1, 1], "concatenation": "hidden_embedding", "final_norm": "none", "bare_embedding": True},
    ),
    "mimo": (
        "qwen2",
        {"num_nextn_predict_layers": 1, "architectures": ["MiMoForCausalLM"], "tie_word_embeddings": False},
        {
            "block_like": [1], "hidden": "before_norm", "concatenation": "hidden_embedding",
            "first_embedding": "zeroed",
        },
    ),
    "ernie": (
        "ernie4_5_moe",
        {
            "moe_layer_start_index": 1, "moe_layer_end_index": 0, "moe_num_experts": 4, "moe_k": 2,
            "moe_intermediate_size": 16, "num_nextn_predict_layers": 1, "tie_word_embeddings": True,
        },
        {"block_like": [1], "first_embedding": "zeroed", "final_norm": "none"},
    ),
    "exaone4_5": (
        "exaone4",
        {
            "sliding_window": 4, "layer_types": ["sliding_attention", "full_attention"], "num_nextn_predict_layers": 1,
            "mtp_share_layers": True,
        },
        {"block_like": [0], "trunk_type": "exaone4"},
    ),
    "deepseek": (
        "deepseek_v3",
        {**_LATENT, "first_k_dense_replace": 2, "num_nextn_predict_layers": 1},
        {"block_like": [1], "first_embedding": "zeroed", "embedding": "copied", "unembedding": "copied"},
    ),
}  # fmt: skip

_EXPERTS = {
    "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "shared_expert_intermediate_size": 16,
    "decoder_sparse_step": 1, "mlp_only_layers": [],
}  # fmt: skip
# The same layouts with experts, one tensor each in the files.
EXPERT_FAMILIES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "qwen3_5_moe": ("qwen3_5_moe_text", {**FAMILIES["qwen3_5"][1], **_EXPERTS}, {"block_like": [1]}),
    "qwen3_next": (
        "qwen3_next",
        {
            **{key: value for key, value in FAMILIES["qwen3_5"][1].items() if key != "mtp_num_hidden_layers"},
            **_EXPERTS, "num_nextn_predict_layers": 1,
        },
        {"block_like": [1]},
    ),
    "deepseek_moe": (
        "deepseek_v3",
        {**FAMILIES["deepseek"][1], "first_k_dense_replace": 1},
        FAMILIES["deepseek"][2],
    ),
    "glm4_moe": (
        "glm4_moe",
        {
            "first_k_dense_replace": 1, "num_nextn_predict_layers": 1, "moe_intermediate_size": 16,
            "n_routed_experts": 4, "n_shared_experts": 1, "num_experts_per_tok": 2, "n_group": 1, "topk_group": 1,
        },
        {"block_like": [1], "first_embedding": "zeroed", "recycled": "before_norm"},
    ),
    "exaone_moe": (
        "exaone_moe",
        {
            "first_k_dense_replace": 1, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16,
            "sliding_window": 4, "layer_types": ["sliding_attention", "full_attention"],
            "num_nextn_predict_layers": 1, "mtp_share_layers": True, "mtp_layer_types": ["sliding_attention"],
            "mtp_mlp_layer_types": ["dense"],
        },
        {"block_like": [0]},
    ),
}  # fmt: skip
EXPERT_FAMILIES |= {
    "deepseek_v32": (
        "deepseek_v32", {**EXPERT_FAMILIES["deepseek_moe"][1], **_INDEXED}, FAMILIES["deepseek"][2],
    ),
    "glm_moe_dsa": (
        "glm_moe_dsa",
        {**EXPERT_FAMILIES["deepseek_moe"][1], **_INDEXED},
        {"block_like": [1], "first_embedding": "zeroed"},
    ),
}  # fmt: skip
# As many layers as transformers has the module's names for: it finds those of no other depth.
DEEP_FAMILIES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    f"{family}_{depth}": (
        EXPERT_FAMILIES[family][0],
        {**EXPERT_FAMILIES[family][1], "num_hidden_layers": depth, "first_k_dense_replace": depth - 1},
        {**EXPERT_FAMILIES[family][2], "block_like": [depth - 1]},
    )
    for family, depth in (("deepseek_moe", 61), ("deepseek_v32", 61), ("glm4_moe", 46), ("glm_moe_dsa", 78))
}
_ALL = FAMILIES | EXPERT_FAMILIES | DEEP_FAMILIES


def declared(family: str, **changes: Any) -> dict[str, Any]:
    """What metadata.json declares under `mtp`; a change that is no field of it is one of the conventions."""
    conventions = _COMMON | _ALL[family][2]
    conventions |= {key: value for key, value in changes.items() if key in (*_COMMON, *_FURTHER)}
    others = {key: value for key, value in changes.items() if key not in conventions}
    heads = 1 + others.get("recursion", len(conventions["block_like"]))
    return {
        "kind": "sequential", "head_type": "deepseek", "n_future_tokens": heads, "conventions": conventions, **others,
    }  # fmt: skip


def native(family: str, config: dict[str, Any] | None = None, **changes: Any) -> NativeMTPForCausalLM:
    """A tiny model in eval mode whose modules and norms have values of their own."""
    model_type, own, _ = _ALL[family]
    built = AutoConfig.for_model(model_type, **(SIZES | own | (config or {})))
    built.declared_mtp = declared(family, **changes)
    torch.manual_seed(0)
    model = NativeMTPForCausalLM(built).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            # At 0.02 every model of this size predicts the uniform distribution; norms would all be equal.
            parameter.mul_(5 if parameter.dim() > 1 else 1).add_(0.1 * torch.randn_like(parameter))
    return model


def told_of_modules(config: Any, block_like: list[int]) -> None:
    """Say in a configuration what `MtpModel` asks of it, where its class has no field for that."""
    config.num_mtp_layers = len(block_like)
    for name in ("layer_types", "mlp_layer_types"):
        if getattr(config, f"mtp_{name}", None) is None and getattr(config, name, None) is not None:
            setattr(config, f"mtp_{name}", [getattr(config, name)[number] for number in block_like])


def oracle(model: NativeMTPForCausalLM) -> MtpModel:
    """Transformers' modules on the same trunk, with the same values."""
    told_of_modules(model.trunk.config, list(model.conventions.block_like))
    made = MtpModel(model.trunk, len(model.heads)).eval()
    values = {}
    for name, value in model.heads.state_dict().items():
        k, _, part = name.partition(".")
        values[f"layers.{int(k) - 2}.{part}"] = value
    found = made.load_state_dict(values, strict=False)
    lacking = [name for name in found.missing_keys if name.startswith("layers.") and "post_norm" not in name]
    assert not lacking
    assert all(".embed_tokens." in name or ".unembedding." in name for name in found.unexpected_keys)
    return made


def plain(family: str) -> Any:
    """The trunk's class for a family, random, as `AutoModelForCausalLM` makes it."""
    model_type, own, _ = _ALL[family]
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(model_type, **(SIZES | own)))
