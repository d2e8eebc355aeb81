"""Small models with native heads, in the layout of their families: random, as `wmtp init` and a server find them.

Sizes are those that vLLM's kernels take on a CPU: heads of 128 for the linear attention of Qwen3.5, 512 + 64 for the
latent attention of DeepSeek.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerBase

from wmtp.authoring.native_families import DRAFTING, conventions_of, released_name
from wmtp.checkpoint.families import family_named
from wmtp.models.native import NativeMTPForCausalLM
from wmtp.publishing.publish import publish_directory
from wmtp.publishing.write import stored_once, write_json, write_shard

HEAD_DIM = 32
_SIZES = {
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "head_dim": HEAD_DIM,
    "max_position_embeddings": 256,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "pad_token_id": 0,
    "tie_word_embeddings": False,
}
_EXPERTS = {
    "n_routed_experts": 4, "n_shared_experts": 1, "num_experts_per_tok": 2, "n_group": 1, "topk_group": 1,
    "moe_intermediate_size": 64,
}  # fmt: skip
_MARGIN_OF_BFLOAT16 = 0.25  # logits: two right programs were seen to differ by 0.03 where each is 0.14 off at most


@dataclass(frozen=True)
class Family:
    """A small model of a family.

    Attributes:
        name: In wmtp's table of families.
        model_type: Of its trunk, in transformers.
        architecture: The class that config.json names.
        config: What config.json has beside the sizes.
        dtype: In which a server's kernels compute it on a CPU.
        packing: Whether documents in one row are kept apart.
        min_margin: By how much the best logit is to lead, in the text after a prompt: so coarsely does `dtype` round.
        options: Settings of the server that it needs.
    """

    name: str
    model_type: str
    architecture: str
    config: Mapping[str, Any] = field(default_factory=dict)
    dtype: str = "float32"
    packing: bool = True
    min_margin: float = 0.0
    options: Mapping[str, Any] = field(default_factory=dict)


QWEN3_5 = Family(
    "qwen3_5", "qwen3_5_text", "Qwen3_5ForCausalLM",
    {
        "layer_types": ["linear_attention", "full_attention"], "linear_num_key_heads": 2,
        "linear_num_value_heads": 2, "linear_key_head_dim": 128, "linear_value_head_dim": 128,
        "mtp_num_hidden_layers": 1,
    },
    dtype="bfloat16", packing=False, min_margin=_MARGIN_OF_BFLOAT16,
)  # fmt: skip
MIMO = Family("mimo", "qwen2", "MiMoForCausalLM", {"num_nextn_predict_layers": 1})
DEEPSEEK = Family(
    "deepseek_v3", "deepseek_v3", "DeepseekV3ForCausalLM",
    {
        **_EXPERTS, "first_k_dense_replace": 3, "q_lora_rank": 64, "kv_lora_rank": 512, "qk_rope_head_dim": 64,
        "qk_nope_head_dim": 64, "v_head_dim": 64, "head_dim": 64, "topk_method": "noaux_tc",
        "num_nextn_predict_layers": 1,
    },
    # vLLM 0.32's own kernel for a CPU turns queries of [tokens, heads, dim], which latent attention has, wrongly: the
    # trunk's text is another one then. Its code in Python is right.
    options={"compilation_config": {"custom_ops": ["all", "-rotary_embedding"]}},
)  # fmt: skip
GLM = Family(
    "glm4_moe", "glm4_moe", "Glm4MoeForCausalLM",
    {**_EXPERTS, "first_k_dense_replace": 1, "num_nextn_predict_layers": 1},
)  # fmt: skip
ERNIE = Family(
    "ernie4_5_moe", "ernie4_5_moe", "Ernie4_5_MoeForCausalLM",
    {
        "moe_layer_start_index": 1, "moe_layer_end_index": 0, "moe_num_experts": 4, "moe_k": 2,
        "moe_intermediate_size": 64, "num_nextn_predict_layers": 1, "tie_word_embeddings": True,
    },
)  # fmt: skip
MELLUM = Family(
    "mellum", "mellum", "MellumForCausalLM",
    {
        "mlp_layer_types": ["dense"] * 2, "layer_types": ["full_attention"] * 2, "num_nextn_predict_layers": 1,
        "num_mtp_layers": 1, "mtp_layer_types": ["full_attention"], "mtp_mlp_layer_types": ["dense"],
    },
)  # fmt: skip


def write_family(family: Family, directory: Path, tokenizer: PreTrainedTokenizerBase) -> Path:
    """Write a fresh model, without metadata.json, as its makers would."""
    torch.manual_seed(0)
    config = _config(family, tokenizer)
    found, drafting = family_named(family.name), DRAFTING[family.name]
    conventions = {**conventions_of(found, drafting), "block_like": [config.num_hidden_layers - 1]}
    config.declared_mtp = {
        "kind": "sequential", "head_type": "deepseek", "n_future_tokens": 2, "conventions": conventions,
    }  # fmt: skip
    model = NativeMTPForCausalLM(config)
    tensors = {
        released_name(drafting, name, config.num_hidden_layers): value
        for name, value in stored_once(model.state_dict()).items()
    }
    with publish_directory(directory) as draft:
        tokenizer.save_pretrained(draft)
        write_shard(draft / "model.safetensors", dict(_each_expert(tensors)))
        values = {**config.to_dict(), **family.config, "architectures": [family.architecture], "dtype": "float32"}
        write_json(draft / "config.json", {key: value for key, value in values.items() if key != "declared_mtp"})
    return directory


def write_trunk(family: Family, directory: Path, tokenizer: PreTrainedTokenizerBase) -> Path:
    """Write a fresh model of a family's trunk, which has no modules and is tied, as transformers does."""
    torch.manual_seed(0)
    config = _config(replace(family, config={"tie_word_embeddings": True}), tokenizer)
    with publish_directory(directory) as draft:
        tokenizer.save_pretrained(draft)
        AutoModelForCausalLM.from_config(config).save_pretrained(draft)
    return directory


def _config(family: Family, tokenizer: PreTrainedTokenizerBase) -> Any:
    return AutoConfig.for_model(family.model_type, vocab_size=len(tokenizer), **(_SIZES | dict(family.config)))


def _each_expert(tensors: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """Files have the matrices of each expert by themselves."""
    for name, value in tensors.items():
        start, _, part = name.rpartition(".experts.")
        if part == "gate_up_proj":
            for number, (gate, up) in enumerate(expert.chunk(2) for expert in value):
                yield f"{start}.experts.{number}.gate_proj.weight", gate.contiguous()
                yield f"{start}.experts.{number}.up_proj.weight", up.contiguous()
        elif part == "down_proj":
            for number, down in enumerate(value):
                yield f"{start}.experts.{number}.down_proj.weight", down.contiguous()
        else:
            yield name, value
