"""Tiny configurations of any architecture that transformers has, by the names of their fields."""

from __future__ import annotations

import re
from typing import Any

from huggingface_hub.errors import StrictDataclassClassValidationError
from transformers import CONFIG_MAPPING, PretrainedConfig

LAYERS = 2
# The first that matches a field's name counts; only whole numbers are changed.
_SIZES: tuple[tuple[str, int], ...] = (
    (r".*vocab_size.*|.*num_embeddings|.*vocabulary.*", 64),
    (r"num_(?:nextn_predict|mtp)_layers|mtp_num_.*|num_kv_shared_layers", 0),
    (r"first_k_dense_replace|num_dense_layers|moe_layer_start_index|n_dense_layers|first_num_dense_layers", 1),
    (
        r"(?:num_|n_)?(?:\w+_)?(?:hidden_|encoder_|decoder_|transformer_)?layers?|depth|n_layers?|num_hidden_layers",
        LAYERS,
    ),
    (
        r"(?:num_|n_)?(?:local_|routed_|shared_)?experts_per_tok\w*|moe_topk|moe_top_k|num_experts_per_token|top_k_experts|moe_k|n_activated_experts",
        2,
    ),
    (r"n_shared_experts|num_shared_experts|moe_num_shared_experts", 1),
    (r"n_group|topk_group|num_expert_groups?|num_limited_groups", 1),
    (r"(?:\w+_)?(?:num_|n_)(?:\w+_)?experts|moe_num_experts|num_experts", 4),
    (r"moe_\w*intermediate_size|\w*shared_expert\w*_size|expert_\w+_size|moe_ffn_\w+", 16),
    (r"(?:\w+_)?(?:num_|n_)?(?:key_value_heads?|kv_heads?|query_groups|multi_query_group_num)", 2),
    (r"(?:q|kv|o)_lora_rank|\w*lora_rank|lora_\w+", 16),
    (
        r"(?:qk_rope|qk_nope|v|qk|rope|index)_head_dim|head_dim|kv_channels|d_kv|attention_head_size|\w+_head_dim|rotary_dim",
        8,
    ),
    (r"(?:\w+_)?(?:num_|n_)?(?:attention_|linear_|attn_)?heads?|n_head|num_heads|mamba_n_heads|index_n_heads", 4),
    (
        r"(?:\w+_)?(?:intermediate_size|ffn_dim|ffn_hidden_size|d_ff|n_inner|inner_dim|mlp_dim|ffn_size|feed_forward\w*|d_inner)",
        48,
    ),
    (
        r"(?:\w+_)?(?:hidden_size|hidden_dim|d_model|n_embd|embed_dim|model_dim|embedding_size|emb_dim|width|projection_dim|dim)(?:_per_layer_input)?",
        32,
    ),
    (r"(?:\w+_)?(?:sliding_window|window_size|attention_window)\w*", 8),
    (
        r"(?:\w+_)?(?:max_position_embeddings|n_positions|n_ctx|max_seq\w*|seq_length|max_sequence_length|max_target_positions)",
        64,
    ),
    (r"(?:\w+_)?image_size|img_size|crop_size", 32),
    (r"(?:\w+_)?patch_size", 8),
    (r"(?:\w+_)?state_size|mamba_d_state|ssm_state_size|d_state", 8),
    (r"(?:num_|n_)labels", 1),
)
_PATTERNS = tuple((re.compile(pattern), size) for pattern, size in _SIZES)
_TOKEN = re.compile(r"(?:\w+_)?token_(?:id|index)|(?:bos|eos|pad|sep|cls|mask|unk)_token_id")


def tiny(model_type: str, exceptions: dict[str, Any], **changes: Any) -> PretrainedConfig:
    """Return a configuration of about 100,000 parameters.

    Args:
        model_type: The architecture.
        exceptions: What it needs otherwise, with nested objects for sub-configurations.
        **changes: What the task needs.
    """
    config_class = CONFIG_MAPPING[model_type]
    try:
        defaults = config_class()
    except StrictDataclassClassValidationError:  # whose own defaults do not fit together
        defaults = config_class(**exceptions)
    shrunk = shrink(defaults.to_dict())
    return config_class.from_dict(_merged(shrunk, {**changes, **exceptions}))


def _merged(values: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    for key, change in changes.items():
        found = values.get(key)
        values[key] = _merged(found, change) if isinstance(found, dict) and isinstance(change, dict) else change
    return values


def shrink(values: dict[str, Any]) -> dict[str, Any]:
    """Return a configuration's values with every size made small."""
    num_layers = next(
        (
            values[key]
            for key in ("num_hidden_layers", "n_layer", "num_layers", "n_layers", "depth")
            if type(values.get(key)) is int
        ),
        None,
    )
    return _latent({key: _shrunk(str(key), value, num_layers) for key, value in values.items()})


def _latent(values: dict[str, Any]) -> dict[str, Any]:
    """Latent attention has a key for each query, of as many features as its two parts together."""
    own = {
        "num_key_value_heads": values.get("num_attention_heads"),
        "qk_head_dim": values.get("qk_nope_head_dim", 0) + values.get("qk_rope_head_dim", 0),
    }
    return values | {key: value for key, value in own.items() if "kv_lora_rank" in values and key in values}


def _shrunk(key: str, value: Any, num_layers: int | None) -> Any:
    if key == "per_layer_config" and value:
        return {"1": shrink(next(iter(value.values())))}  # the others' layers are not there
    if isinstance(value, dict):
        return value if key in ("rope_parameters", "rope_scaling", "id2label", "label2id") else shrink(value)
    if isinstance(value, list) and value and len(value) == num_layers:
        return _few([_shrunk(str(key), each, None) for each in value])
    if type(value) is not int:
        return value
    if _TOKEN.fullmatch(key):
        return value % 60
    return next((min(size, value) if size else size for pattern, size in _PATTERNS if pattern.fullmatch(key)), value)


def _few(values: list[Any]) -> list[Any]:
    """As many as there are layers, with one of each kind as far as they go."""
    kinds = list(dict.fromkeys(map(str, values)))
    first = [next(value for value in values if str(value) == kind) for kind in kinds[:LAYERS]]
    return (first * LAYERS)[:LAYERS]
