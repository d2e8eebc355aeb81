"""Tiny real causal LMs and MTP models on them, random but repeatable."""

from __future__ import annotations

import torch
from transformers import (
    AutoModelForCausalLM,
    Gemma3Config,
    GPT2Config,
    LlamaConfig,
    MistralConfig,
    PretrainedConfig,
    Qwen2VLConfig,
)

from wmtp.models.mtp import MTPForCausalLM
from wmtp.models.resblock import ResBlock

VOCAB = 64
ARCHITECTURES = ("gpt2", "llama", "mistral")
HEAD_TYPES = ("linear", "transformer", "resblock")

_LLAMA = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "bos_token_id": 1,
    "eos_token_id": 0,
}


def tiny_config(architecture: str, **changes) -> PretrainedConfig:
    """A configuration of about 20,000 parameters; mistral's window is smaller than the rows of the tests."""
    if architecture == "gpt2":
        sizes = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64, "bos_token_id": 1, "eos_token_id": 0}
        return GPT2Config(**({"vocab_size": VOCAB} | sizes | changes))
    if architecture == "mistral":
        return MistralConfig(**(_LLAMA | {"sliding_window": 4} | changes))
    return LlamaConfig(**(_LLAMA | changes))


def qwen2_vl_config() -> Qwen2VLConfig:
    """A model that sees, whose part for text is as small as the others."""
    vision = {"depth": 1, "embed_dim": 32, "hidden_size": 32, "num_heads": 4}
    rope = {"rope_type": "default", "mrope_section": [2, 1, 1], "rope_theta": 1e4}
    return Qwen2VLConfig(text_config=_LLAMA | {"rope_parameters": rope}, vision_config=vision)


def gemma3_config() -> Gemma3Config:
    """The configuration of a tiny Gemma 3 that sees."""
    shape = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    text = shape | {"vocab_size": 64, "num_key_value_heads": 2, "head_dim": 8, "sliding_window": 4}
    return Gemma3Config(
        text_config=text, vision_config=shape | {"image_size": 16, "patch_size": 8}, mm_tokens_per_image=4
    )


def tiny_mtp(
    architecture: str = "llama", heads: int = 3, head_type: str = "transformer", options: dict | None = None, **changes
) -> MTPForCausalLM:
    """A tiny MTP model in eval mode, its heads different from each other; `options` are of its `mtp_config`."""
    config = tiny_config(architecture, **changes)
    config.mtp_config = {"n_future_tokens": heads, "head_type": head_type, **(options or {})}
    torch.manual_seed(0)
    model = MTPForCausalLM(config).eval()
    with torch.no_grad():
        # At 0.02 as initialised, every model of this size predicts the uniform distribution.
        for parameter in model.parameters():
            parameter.mul_(5)
        # Which begin as nothing at all.
        for block in (module for module in model.modules() if isinstance(module, ResBlock)):
            for parameter in block.parameters():
                parameter.normal_(std=0.2)
    return model


def around(config: PretrainedConfig, head_type: str = "transformer") -> MTPForCausalLM:
    """A random trunk of a configuration, with a second head that is equal to its own."""
    torch.manual_seed(0)
    trunk = AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for parameter in trunk.parameters():
            parameter.mul_(5)
    return MTPForCausalLM.around(trunk, heads=2, head_type=head_type)


def tokens(*shape: int, seed: int = 0) -> torch.Tensor:
    """Random token ids."""
    return torch.randint(0, VOCAB, shape, generator=torch.Generator().manual_seed(seed))
