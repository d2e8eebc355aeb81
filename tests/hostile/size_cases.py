"""Sizes that no checkpoint has, and values of kinds that no class takes, in config.json."""

from __future__ import annotations

from typing import Any

from hostile.bases import gpt2, metadata_of, mtp, own, reward
from hostile.case import Case, Change
from hostile.changes import config, meta
from hostile.configuration_cases import ANY, C, refused
from hostile.draft import Draft
from hostile.good import REWARD

_SIZES: dict[str, tuple[Any, ...]] = {
    "num_hidden_layers": (10**7, 10**9, 10**38, -1, 0, True, 2.5, "2", [2], {"n": 2}),
    "vocab_size": (10**9, 10**18, 10**30, -32, 0, "32"),
    "hidden_size": (10**6, 10**9, 10**18, -8, 0, 7, "8"),
    "intermediate_size": (10**12, -16, 0, "16"),
    "num_attention_heads": (10**9, 0, -2, 3, "2"),
    "num_key_value_heads": (10**9, 0, -1, 3),
    "head_dim": (10**9, 10**18, 0, -4, 5, "4"),
}
_VALUES: dict[str, tuple[Any, ...]] = {
    "hidden_act": ("no-such", "__class__", "os.system", 7, ["silu"]),
    "pad_token_id": (10**9, -(10**9), "0", [0]),
    "rms_norm_eps": ("small",),
    "rope_parameters": ("x", {"rope_type": "no-such"}, {"rope_type": "yarn"}, {"rope_type": 7}),
    "rope_theta": ("x", [1]),
    "layer_types": (["no-such"] * 2, "full_attention"),
    "id2label": ({"a": "b"}, [1], "x"),
    "to_dict": ("x",),
    "get_text_config": ("x", 7),
    "__class__": ("x",),
    "__dict__": ({"a": 1}, "x"),
    "sub_configs": ({"x": "y"},),
    "attribute_map": ("x", 7, {"vocab_size": "x"}),
}

# Sizes from which a class makes buffers, which no header bounds: (type, class, key, value).
_BUFFERS = (
    ("gptj", "GPTJForCausalLM", "n_positions", 10**8),
    ("codegen", "CodeGenForCausalLM", "n_positions", 10**8),
    ("gptj", "GPTJForCausalLM", "n_positions", 4 * 10**6),
    ("ctrl", "CTRLLMHeadModel", "n_positions", 4 * 10**6),
    ("gpt_neo", "GPTNeoForCausalLM", "max_position_embeddings", 10**5),
    ("gpt_bigcode", "GPTBigCodeForCausalLM", "n_positions", 10**5),
    ("clip_vision_model", "CLIPVisionModel", "image_size", 10**6),
    ("swin", "SwinModel", "window_size", 10**4),
    ("whisper", "WhisperForConditionalGeneration", "max_source_positions", 10**9),
    ("bert", "BertModel", "max_position_embeddings", 10**9),
    ("gpt_oss", "GptOssForCausalLM", "num_local_experts", 10**8),
    ("mpt", "MptForCausalLM", "n_heads", 10**8),
    ("t5", "T5ForConditionalGeneration", "num_layers", 10**7),
)


def _another_architecture(architecture: str, transformers_class: str, **keys: Any) -> Change:
    def change(draft: Draft) -> None:
        draft.metadata = metadata_of(architecture, loader_type="huggingface", transformers_class=transformers_class)
        draft.config = {"model_type": architecture, **keys}

    return change


def _of_size(key: str, value: Any) -> Case:
    # A value of a wrong kind, or beyond all bounds, is named by its file; the others by the tensors they contradict.
    is_size = type(value) is int and value < 10**6
    naming = ("config.json|model.safetensors|model.layers",) if is_size else (C,)
    return refused(f"{key} of {value!r} of {type(value).__name__}", ANY, naming, config(**{key: value}))


CASES = [
    *[_of_size(key, value) for key, values in _SIZES.items() for value in values],
    *[
        refused(f"{key} of {value!r} of {type(value).__name__}", ANY, (C,), config(**{key: value}))
        for key, values in _VALUES.items()
        for value in values
    ],
    refused("ten million layers of a gpt2", ANY, (C, "n_layer"), config(n_layer=10**7), base=gpt2),
    refused(
        "a million positions of a gpt2",
        ANY,
        "config.json|transformer.wpe.weight",
        config(n_positions=10**6),
        base=gpt2,
    ),
    refused("ten thousand million positions of a gpt2", ANY, C, config(n_positions=10**10), base=gpt2),
    refused("an inner size of a gpt2 beyond memory", ANY, C, config(n_inner=10**10), base=gpt2),
    refused("a thousand million labels of a model that has none", ANY, (C, "num_labels"), config(num_labels=10**9)),
    refused(
        "a thousand million labels of a reward model",
        ANY,
        (C, "num_labels"),
        lambda d: d.config.pop("id2label"),
        config(num_labels=10**9),
        base=reward,
        peer=REWARD,
    ),
    refused(
        "another number of labels than scores",
        ANY,
        ("score.weight", "id2label in config.json counts 5, not 1"),
        config(id2label={str(n): str(n) for n in range(5)}),
        base=reward,
        peer=REWARD,
    ),
    refused(
        "ten million heads",
        ANY,
        (C, "n_future_tokens"),
        config(mtp_config={"n_future_tokens": 10**7, "head_type": "linear"}),
        meta(mtp={"n_future_tokens": 10**7}),
        base=mtp,
        peer=None,
    ),
    refused(
        "ten million blocks in a head",
        ANY,
        (C, "num_blocks"),
        config(mtp_config={"n_future_tokens": 2, "head_type": "resblock", "num_blocks": 10**7}),
        base=lambda: mtp("resblock"),
        peer=None,
    ),
    refused(
        "a padding token out of the vocabulary",
        ANY,
        (C, "pad_token_id is 10000", "vocab_size"),
        config(pad_token_id=10**4),
    ),
    refused("a width below nothing", ANY, (C, "hidden_size is -8, which is no size"), config(hidden_size=-8)),
    refused(
        "a vocabulary larger than the embeddings", ANY, ("vocab_size in config.json is 40, not"), config(vocab_size=40)
    ),
    *[
        refused(
            f"{key} of {value} in a {kind}",
            ANY,
            C,
            _another_architecture(kind, name, **{key: value}),
            peer="AutoModel",
        )
        for kind, name, key, value in _BUFFERS
    ],
    refused(
        "a thousand million labels of a model that no library knows",
        ANY,
        (C, "num_labels"),
        config(num_labels=10**9),
        base=own,
        consent=("modeling.py",),
        peer=None,
    ),
    refused(
        "a vocabulary beyond memory of a model that no library knows",
        ANY,
        "config.json|modeling.py|embedding.weight",
        config(vocab_size=10**10),
        base=own,
        consent=("modeling.py",),
        peer=None,
    ),
    refused(
        "a million layers of a model with heads",
        ANY,
        (C, "num_hidden_layers"),
        config(num_hidden_layers=10**6),
        base=mtp,
        peer=None,
    ),
    refused(
        "a trunk of pictures for a model with heads",
        ANY,
        C,
        config(model_type="clip"),
        meta(base_architecture="clip"),
        base=mtp,
        peer=None,
    ),
]
