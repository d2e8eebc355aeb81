"""Good checkpoints of each kind, tiny but whole: what every case begins with."""

from __future__ import annotations

import copy
from typing import Any

from hostile.draft import INNER, LAYERS, VOCAB, WEIGHTS, WIDTH, Draft, tensors_of


def metadata_of(architecture: str, *, wmtp_type: str = "base_model", **strategy: Any) -> dict[str, Any]:
    """A metadata.json that says no more than it must."""
    return {
        "wmtp_type": wmtp_type,
        "training_algorithm": "baseline",
        "base_architecture": architecture,
        "storage_version": "2.0",
        "loading_strategy": {"required_files": ["config.json", WEIGHTS], **strategy},
        "algorithm_compatibility": ["baseline-mtp"],
    }


_LLAMA_CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": VOCAB,
    "hidden_size": WIDTH,
    "intermediate_size": INNER,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 64,
    "tie_word_embeddings": False,
    "bos_token_id": 1,
    "eos_token_id": 0,
}


def layer_shapes(start: str) -> dict[str, tuple[int, ...]]:
    """Parameters of one layer of llama or mistral."""
    half = WIDTH // 2
    projections = {"q": (WIDTH, WIDTH), "k": (half, WIDTH), "v": (half, WIDTH), "o": (WIDTH, WIDTH)}
    mlp = {"gate": (INNER, WIDTH), "up": (INNER, WIDTH), "down": (WIDTH, INNER)}
    return {
        **{f"{start}self_attn.{name}_proj.weight": shape for name, shape in projections.items()},
        **{f"{start}mlp.{name}_proj.weight": shape for name, shape in mlp.items()},
        **{f"{start}{name}_layernorm.weight": (WIDTH,) for name in ("input", "post_attention")},
    }


def llama_shapes(layers: int = LAYERS, head: str = "lm_head.weight", rows: int = VOCAB) -> dict[str, tuple[int, ...]]:
    """Parameters of a llama with one head."""
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (VOCAB, WIDTH)}
    for number in range(layers):
        shapes |= layer_shapes(f"model.layers.{number}.")
    return {**shapes, "model.norm.weight": (WIDTH,), head: (rows, WIDTH)}


def llama(dtype: str = "F32") -> Draft:
    """An untied llama in one file."""
    declared = metadata_of("llama", loader_type="huggingface", transformers_class="LlamaForCausalLM")
    return Draft(declared, copy.deepcopy(_LLAMA_CONFIG), tensors_of(llama_shapes(), dtype))


def mistral() -> Draft:
    """An untied mistral in one file."""
    draft = llama()
    draft.metadata = metadata_of("mistral", loader_type="huggingface", transformers_class="MistralForCausalLM")
    draft.config |= {"model_type": "mistral", "architectures": ["MistralForCausalLM"], "sliding_window": 16}
    return draft


def gpt2() -> Draft:
    """A gpt2 with tied embeddings in one file."""
    shapes: dict[str, tuple[int, ...]] = {
        "transformer.wte.weight": (VOCAB, WIDTH),
        "transformer.wpe.weight": (64, WIDTH),
    }
    for number in range(LAYERS):
        start, norm = f"transformer.h.{number}.", {"weight": (WIDTH,), "bias": (WIDTH,)}
        linear = {"attn.c_attn": 3 * WIDTH, "attn.c_proj": WIDTH, "mlp.c_fc": 4 * WIDTH, "mlp.c_proj": WIDTH}
        shapes |= {f"{start}{part}.{name}": shape for part in ("ln_1", "ln_2") for name, shape in norm.items()}
        for part, out in linear.items():
            width = 4 * WIDTH if part == "mlp.c_proj" else WIDTH
            shapes |= {f"{start}{part}.weight": (width, out), f"{start}{part}.bias": (out,)}
    shapes |= {"transformer.ln_f.weight": (WIDTH,), "transformer.ln_f.bias": (WIDTH,)}
    config = {"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], "vocab_size": VOCAB, "n_embd": WIDTH}
    config |= {"n_layer": LAYERS, "n_head": 2, "n_positions": 64, "bos_token_id": 1, "eos_token_id": 0}
    declared = metadata_of("gpt2", loader_type="huggingface", transformers_class="GPT2LMHeadModel")
    return Draft(declared, config, tensors_of(shapes))


def gpt_neo() -> Draft:
    """A gpt_neo: its causal masks are buffers, and larger than all of its tensors together."""
    shapes: dict[str, tuple[int, ...]] = {"wte.weight": (VOCAB, WIDTH), "wpe.weight": (1024, WIDTH)}
    for number in range(LAYERS):
        start, norm = f"h.{number}.", {"weight": (WIDTH,), "bias": (WIDTH,)}
        shapes |= {f"{start}{part}.{name}": shape for part in ("ln_1", "ln_2") for name, shape in norm.items()}
        shapes |= {f"{start}attn.attention.{part}_proj.weight": (WIDTH, WIDTH) for part in ("q", "k", "v", "out")}
        shapes |= {f"{start}attn.attention.out_proj.bias": (WIDTH,), f"{start}mlp.c_fc.weight": (4 * WIDTH, WIDTH)}
        shapes |= {f"{start}mlp.c_fc.bias": (4 * WIDTH,), f"{start}mlp.c_proj.weight": (WIDTH, 4 * WIDTH)}
        shapes |= {f"{start}mlp.c_proj.bias": (WIDTH,)}
    shapes |= {"ln_f.weight": (WIDTH,), "ln_f.bias": (WIDTH,)}
    config = {"model_type": "gpt_neo", "vocab_size": VOCAB, "hidden_size": WIDTH, "num_layers": LAYERS, "num_heads": 2}
    config |= {"max_position_embeddings": 1024, "attention_types": [[["global", "local"], 1]], "window_size": 16}
    config |= {"architectures": ["GPTNeoForCausalLM"], "bos_token_id": 1, "eos_token_id": 0}
    declared = metadata_of("gpt_neo", loader_type="huggingface", transformers_class="GPTNeoForCausalLM")
    return Draft(declared, config, tensors_of({f"transformer.{name}": shape for name, shape in shapes.items()}))


def reward() -> Draft:
    """A reward model on a llama: one score a sequence."""
    draft = llama()
    draft.metadata = metadata_of(
        "llama",
        wmtp_type="reward_model",
        loader_type="huggingface",
        transformers_class="LlamaForSequenceClassification",
    )
    draft.config |= {
        "architectures": ["LlamaForSequenceClassification"],
        "id2label": {"0": "reward"},
        "pad_token_id": 0,
    }
    draft.tensors = tensors_of(llama_shapes(head="score.weight", rows=1))
    return draft


def mtp(head_type: str = "linear") -> Draft:
    """The built-in multi-token prediction model with two heads."""
    draft = llama()
    draft.metadata = metadata_of("llama", loader_type="custom_mtp", model_class_name="MTPForCausalLM")
    draft.metadata["mtp"] = {"n_future_tokens": 2, "head_type": head_type}
    draft.config["mtp_config"] = {"n_future_tokens": 2, "head_type": head_type}
    head = {"heads.2.unembedding.weight": (VOCAB, WIDTH)} if head_type == "linear" else layer_shapes("heads.2.layer.")
    draft.tensors = tensors_of({**{f"trunk.{name}": shape for name, shape in llama_shapes().items()}, **head})
    return draft


MODELING = '''"""A bag of words."""

from torch import nn


class OwnModel(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.embedding = nn.Embedding(config.vocab_size, config.width)
        self.head = nn.Linear(config.width, config.vocab_size, bias=False)

    def forward(self, input_ids):
        return self.head(self.embedding(input_ids))
'''


def own(modeling: str | bytes = MODELING, *others: str, class_name: str = "OwnModel") -> Draft:
    """A model type that no library knows, built by the checkpoint's own code."""
    strategy = {"loader_type": "custom_mtp", "model_class_name": class_name, "custom_module_file": "modeling.py"}
    declared = metadata_of("toy", **strategy)
    declared["loading_strategy"]["required_files"] += ["modeling.py", *others]
    shapes: dict[str, tuple[int, ...]] = {"embedding.weight": (VOCAB, WIDTH), "head.weight": (VOCAB, WIDTH)}
    draft = Draft(declared, {"model_type": "toy", "vocab_size": VOCAB, "width": WIDTH}, tensors_of(shapes))
    draft.files["modeling.py"] = modeling if isinstance(modeling, bytes) else modeling.encode()
    return draft
