"""Which architectures let documents that are packed into one row see each other, and how that is refused.

Data, so that a plan can say it from config.json alone; what a model really does, `adapter.check_packing` finds out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from wmtp.errors import TrainingError
from wmtp.untrusted import show

# Kinds of layers that carry a state from token to token, which no position ends.
_STATEFUL_KINDS = frozenset({"linear_attention", "mamba", "mamba2", "conv", "recurrent"})
_KINDS = ("layer_types", "layers_block_type", "block_types")
# Have such layers where config.json does not say of which kinds they are.
_STATEFUL = frozenset(
    """
    bailing_hybrid bamba falcon_h1 falcon_mamba granitemoehybrid jamba kimi_linear lara_mini lfm2 lfm2_moe
    lfm3 mamba mamba2 minimax nemotron_h olmo_hybrid qwen3_5 qwen3_5_moe qwen3_5_moe_text qwen3_5_text
    qwen3_next recurrent_gemma rwkv xlstm zamba zamba2
    """.split()  # noqa: SIM905  names in lines, not one a line
)
# Take no bounds from position_ids. Both tables were found by asking every causal model of transformers 5.24 that can be
# made tiny, as `adapter.check_packing` does; a run asks its own model again.
_UNBOUNDED = frozenset(
    """
    afmoe bart bert bert-generation big_bird bigbird_pegasus biogpt blenderbot blenderbot-small bloom
    camembert cpmant data2vec-text deepseek_v4 electra ernie gpt_oss inkling2_loop_text inkling2_text
    inkling_text marian mbart megatron-bert moss_transcribe_diarize mpt mvp openai-gpt opt pegasus plbart prophetnet
    reformer rembert roberta roberta-prelayernorm roc_bert roformer trocr whisper xglm xlm xlm-roberta
    xlm-roberta-xl xlnet xmod zaya
    """.split()  # noqa: SIM905  names in lines, not one a line
)


def mixing_of(config: Mapping[str, Any]) -> str | None:
    """Say why packed documents see each other in a model; None where nothing is known that would let them.

    Args:
        config: Its config.json; what it says under `text_config` counts.
    """
    nested = config.get("text_config")
    types = [place.get("model_type") for place in (config, nested) if isinstance(place, dict)]
    if found := next((name for name in types if name in _UNBOUNDED), None):
        return f"layers of {show(found)} take no bounds from position_ids"
    kinds = _kinds_of_layers(nested if isinstance(nested, dict) else config)
    if kinds is None:
        found = next((name for name in types if name in _STATEFUL), None)
        return found and f"layers of {show(found)} carry a state from token to token"
    stateful = next((kind for kind in kinds if kind in _STATEFUL_KINDS), None)
    return stateful and f"it has layers of the kind {show(stateful)}, which carry a state from token to token"


def _kinds_of_layers(text: Mapping[str, Any]) -> list[str] | None:
    found = next((text[key] for key in _KINDS if isinstance(text.get(key), list)), None)
    return found and [kind for kind in found if isinstance(kind, str)]


def packing_refusal(name: str, why: str) -> TrainingError:
    """Return the error that says that rows of several documents cannot be trained on.

    Args:
        name: The model, or its class.
        why: What lets its documents see each other.
    """
    return TrainingError(
        f"{name}: documents packed into one row see each other: {why}",
        hint="set data.train.packing: false in the recipe, and data.validation.packing where that is given",
    )
