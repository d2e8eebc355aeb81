"""Meta's release of models that predict several tokens: params.json, and what its tensors are for a built-in class.

`n_layers` counts every decoder layer, those of the further heads too. All heads read the state after `layers[:-1]`:
head 1 is the last of `layers`, head j + 2 is `extra_heads.j`; norm and unembedding are shared. These are heads of the
type `transformer`. Rotary dimensions lie in pairs (2i, 2i + 1) there, and i and i + d/2 are a pair in transformers: the
rows of wq and wk are in another order, head by head.

Source: Gloeckle et al. 2024 (arXiv 2404.19737), and the code beside its weights; defaults are those of its `ModelArgs`.
"""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import Field, ValidationError, ValidationInfo, field_validator

from wmtp.errors import FormatError
from wmtp.faults import Fault, FieldFaults, StrictModel, faults_error, model_faults
from wmtp.metadata.schema import StateDictMapping
from wmtp.storage.store import Store
from wmtp.untrusted import parse_json_object

PARAMS_FILE = "params.json"
MAX_PARAMS_BYTES = 1 << 20
EMBEDDING, UNEMBEDDING = "tok_embeddings.weight", "output.weight"
_MULTIPLE = 256  # of Meta's own models
_ENDS = {
    EMBEDDING: (r"^tok_embeddings\.", "trunk.model.embed_tokens."),
    UNEMBEDDING: (r"^output\.", "trunk.lm_head."),
}
# Meta's name, ours, and the dimensions: of hidden states, of keys, and the width of feed-forward layers.
_LAYER = {
    "attention.wq": ("self_attn.q_proj", ("dim", "dim")),
    "attention.wk": ("self_attn.k_proj", ("keys", "dim")),
    "attention.wv": ("self_attn.v_proj", ("keys", "dim")),
    "attention.wo": ("self_attn.o_proj", ("dim", "dim")),
    "feed_forward.w1": ("mlp.gate_proj", ("width", "dim")),
    "feed_forward.w2": ("mlp.down_proj", ("dim", "width")),
    "feed_forward.w3": ("mlp.up_proj", ("width", "dim")),
    "attention_norm": ("input_layernorm", ("dim",)),
    "ffn_norm": ("post_attention_layernorm", ("dim",)),
}

Size = Annotated[int, Field(ge=1, le=1 << 24)]


class MetaParams(StrictModel):
    """params.json: the arguments that Meta's code builds a model from."""

    dim: Size = Field(description="Width of the hidden state.")
    n_layers: int = Field(ge=1, le=4096, description="Decoder layers, those of the further heads among them.")
    n_heads: Size = Field(description="Attention heads.")
    n_kv_heads: Size | None = Field(None, description="Those of keys and values; null: as many.")
    vocab_size: int = Field(-1, ge=-1, le=1 << 24, description="-1: as the tokenizer has.")
    multiple_of: Size = Field(_MULTIPLE, description="The feed-forward width is rounded up to a multiple of it.")
    ffn_dim_multiplier: float | None = Field(None, gt=0, le=64, description="Of the feed-forward width.")
    norm_eps: float = Field(1e-5, gt=0, le=1)
    rope_theta: float = Field(10000.0, gt=0, le=1e15)
    n_future_tokens: int = Field(ge=1, le=64, description="Prediction heads, counting the next-token head.")
    max_batch_size: Size = Field(32, description="Of Meta's cache; not used.")
    max_seq_len: Size = Field(2048, description="Of Meta's cache: the positions that a model is declared for.")

    @field_validator("n_heads")
    @classmethod
    def _heads_divide_the_width(cls, value: int, info: ValidationInfo) -> int:
        dim = info.data.get("dim")
        if dim is not None and dim % (2 * value):
            raise FieldFaults(Fault((), f"is {value}, which does not divide dim, {dim}, into heads of even size"))
        return value

    @field_validator("n_kv_heads")
    @classmethod
    def _groups_divide_the_heads(cls, value: int | None, info: ValidationInfo) -> int | None:
        heads = info.data.get("n_heads")
        if value is not None and heads is not None and heads % value:
            raise FieldFaults(Fault((), f"is {value}, which does not divide n_heads, {heads}"))
        return value

    @field_validator("n_future_tokens")
    @classmethod
    def _every_head_has_a_layer(cls, value: int, info: ValidationInfo) -> int:
        layers = info.data.get("n_layers")
        if layers is not None and value > layers:
            raise FieldFaults(Fault((), f"is {value}, and n_layers, which counts a layer for each, is {layers}"))
        return value

    @property
    def num_trunk_layers(self) -> int:
        """`layers` of the trunk: head 1 has the last of them."""
        return self.n_layers - self.n_future_tokens + 1

    @property
    def num_groups(self) -> int:
        """Attention heads of keys and values."""
        return self.n_kv_heads or self.n_heads

    @property
    def key_width(self) -> int:
        """Rows of wk and wv."""
        return self.dim // self.n_heads * self.num_groups


def read_params(store: Store) -> dict[str, Any]:
    """Return params.json as it stands there, strict JSON.

    Raises:
        FormatError: If it is not.
    """
    data = store.read_bytes(PARAMS_FILE, max_bytes=MAX_PARAMS_BYTES)
    return parse_json_object(data, where=str(store.uri / PARAMS_FILE), error=FormatError, max_bytes=MAX_PARAMS_BYTES)


def parse_params(document: dict[str, Any], *, where: str) -> MetaParams:
    """Return what params.json says, held to its fields, types and bounds.

    Args:
        document: As `read_params` gives it.
        where: The file, as errors show it.

    Raises:
        FormatError: Naming every field that is wrong, with what was found.
    """
    try:
        return MetaParams.model_validate(document)
    except ValidationError as error:
        hint = "copy params.json again from where the weights are; a model with other parts is not of this release"
        raise faults_error(model_faults(error, MetaParams), where=where, error=FormatError, hint=hint) from error


def stored_shapes(params: MetaParams, *, width: int, vocab_size: int) -> dict[str, tuple[int, ...]]:
    """Return the shape of every tensor, by Meta's names and in Meta's order.

    Args:
        params: Of the model.
        width: Of the feed-forward layers.
        vocab_size: Rows of embedding and unembedding.
    """
    dim = params.dim
    sizes = {"dim": dim, "keys": params.key_width, "width": width}
    shapes = {part: tuple(sizes[each] for each in dimensions) for part, (_, dimensions) in _LAYER.items()}
    layers = [f"layers.{i}" for i in range(params.num_trunk_layers)]
    layers += [f"extra_heads.{j}" for j in range(params.n_future_tokens - 1)]
    stored: dict[str, tuple[int, ...]] = {EMBEDDING: (vocab_size, dim)}
    for layer in layers:
        stored |= {f"{layer}.{part}.weight": shape for part, shape in shapes.items()}
    return {**stored, "norm.weight": (dim,), UNEMBEDDING: (vocab_size, dim)}


def mapping(params: MetaParams, *, absent: str | None = None, unused: tuple[str, ...] = ()) -> StateDictMapping:
    """Return what leads from Meta's tensors to those of `MTPForCausalLM` on a llama.

    Args:
        params: Of the model.
        absent: The one of `EMBEDDING` and `UNEMBEDDING` that is stored under the other's name.
        unused: Tensors that no parameter is made of.
    """
    transforms = dict(rule for name, rule in _ENDS.items() if name != absent)
    transforms |= {r"^norm\.": "trunk.model.norm.", r"^layers\.": "trunk.model.layers."}
    transforms |= {rf"^extra_heads\.{j}\.": f"heads.{j + 2}.layer." for j in range(params.n_future_tokens - 1)}
    transforms |= {rf"\.{re.escape(part)}\.": f".{own}." for part, (own, _) in _LAYER.items()}
    fields = {"key_transforms": transforms, "tensors": _rotary_rows(params), "allow_unexpected": list(unused)}
    return StateDictMapping.model_validate(fields)


def _rotary_rows(params: MetaParams) -> dict[str, Any]:
    layers = ["trunk.model.layers.{i}", *(["heads.{k}.layer"] if params.n_future_tokens > 1 else [])]
    counts = {"q_proj": params.n_heads, "k_proj": params.num_groups}
    return {
        f"{layer}.self_attn.{part}.weight": {
            "rearrange": "(h d two) x -> (h two d) x",
            "sizes": {"h": count, "two": 2},
            "of": f"{layer}.self_attn.{part}.weight",
        }
        for layer in layers
        for part, count in counts.items()
    }


def llama_config(params: MetaParams, *, width: int, vocab_size: int, tied: bool, dtype: str) -> dict[str, Any]:
    """Return the config.json of `MTPForCausalLM` on a llama; `width` and `vocab_size` as for `stored_shapes`."""
    return {
        "architectures": ["MTPForCausalLM"],
        "model_type": "llama",
        "mtp_config": {"n_future_tokens": params.n_future_tokens, "head_type": "transformer"},
        "hidden_size": params.dim,
        "intermediate_size": width,
        "num_hidden_layers": params.num_trunk_layers,
        "num_attention_heads": params.n_heads,
        "num_key_value_heads": params.num_groups,
        "head_dim": params.dim // params.n_heads,
        "vocab_size": vocab_size,
        "hidden_act": "silu",
        "rms_norm_eps": params.norm_eps,
        "rope_parameters": {"rope_type": "default", "rope_theta": params.rope_theta},
        "max_position_embeddings": params.max_seq_len,
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": tied,
        "dtype": dtype,
    }


def feed_forward_fields(dim: int, width: int) -> dict[str, Any]:
    """Return `multiple_of`, and `ffn_dim_multiplier` where it takes one, with which Meta's code computes a width.

    It rounds 2/3 of 4 dim, times the multiplier, up to a multiple.

    Args:
        dim: Of the hidden state.
        width: Of the feed-forward layers.
    """
    least = 2 * 4 * dim // 3
    if width < least:
        return {"multiple_of": 1, "ffn_dim_multiplier": (width + 0.5) / least}  # half a row above: it rounds down
    fitting = (each for each in (_MULTIPLE, *range(width - least + 1, width + 1)) if width % each == 0)
    return {"multiple_of": next(each for each in fitting if each > width - least)}
