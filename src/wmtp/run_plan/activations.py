"""About how much of a forward pass is kept for the backward pass, from shapes of parameters and config.json.

Source: Korthikanti et al. 2022 (arXiv 2205.05198), section 4.1, counts it tensor by tensor for one architecture. Here
    it is counted from the matrices of each layer, whatever it is: a matrix between the width of the model and another
    width keeps values of that other width. Attention is taken for one that keeps no scores.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from wmtp.checkpoint.contents import Checkpoint
from wmtp.run_plan.memory import FULL_BYTES
from wmtp.run_plan.shapes import ModelShapes, Parameter

if TYPE_CHECKING:
    from wmtp.settings.recipe import Recipe

_WIDTHS = ("hidden_size", "n_embd", "d_model")
_EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts")
_IN_EXPERTS = re.compile(r"\.experts\.")
# Values that activation functions made of several operations keep beside what goes in and comes out.
_COMPOSED = {"gelu_new": 3, "gelu_fast": 3, "quick_gelu": 1}
_HEADS = "heads."
_BLOCK = re.compile(r"^heads\.\d+\.blocks\.")
_NORM_VALUES = 2  # what goes in, and what comes out
_CHUNK_ROWS = 512  # positions whose logits exist at a time, as `models.losses` has it
_CHUNK_VALUES = 3  # logits, their softmax, their gradient


@dataclass(frozen=True)
class Activations:
    """About how many bytes are kept.

    Attributes:
        kept: From the forward pass of a batch for its backward pass.
        recomputed: Of one layer, while it is computed again in the backward pass.
        loss: Of logits, while the loss of some positions is computed.
    """

    kept: int
    recomputed: int
    loss: int


def activations_of(recipe: Recipe, base: Checkpoint, shapes: ModelShapes, width: int) -> Activations | None:
    """Return about what one batch of a device keeps; None where config.json does not say how wide the model is.

    Args:
        recipe: Batch size, length, and whether layers are computed again in the backward pass.
        base: Its config.json.
        shapes: Its parameters.
        width: Bytes of a value that it computes with.
    """
    text = base.config.get("text_config")
    config: dict[str, Any] = text if isinstance(text, dict) else base.config
    dim, vocab = _number(config, *_WIDTHS), _number(config, "vocab_size")
    if dim is None or vocab is None:
        return None
    rows, length = recipe.train.per_device_train_batch_size, recipe.data.train.max_length
    tokens = rows * length
    # Packed documents are kept apart by a mask, which each layer has in the dtype that it computes in.
    mask = rows * length * length * width if recipe.data.train.packing else 0
    units = shapes.units()
    root = units.pop("")
    trained = {name: unit for name, unit in units.items() if any(each.is_trained for each in unit)}
    sizes = {name: _layer(unit, config, dim, width) * tokens + mask * _attends(unit) for name, unit in trained.items()}
    layers = {name: size for name, size in sizes.items() if not _BLOCK.search(name)}
    heads = recipe.mtp.horizon or base.metadata.num_heads or 1
    # Rows that meet the unembedding, of each head that learns; and the final norm, once behind each last layer.
    learns = any(not name.startswith(_HEADS) for name in trained)
    ends: float = dim * width * (heads if learns else heads - 1)
    ends += max(0, _norms(root, dim, width) - dim * width) * (learns + sum(name.startswith(_HEADS) for name in layers))
    ends += dim * width * (len(layers) < len(trained))  # what the first blocks of all heads share
    kept, recomputed = ends * tokens + sum(sizes.values()), 0.0
    if recipe.train.gradient_checkpointing and layers:
        # Blocks of heads are not computed again; layers of heads share what goes into the trunk's last one.
        inputs = dim * width * tokens * sum(not name.startswith(_HEADS) for name in layers)
        kept, recomputed = kept - sum(layers.values()) + inputs, max(layers.values())
    loss = _CHUNK_VALUES * FULL_BYTES * vocab * min(_CHUNK_ROWS, tokens * heads)
    return Activations(round(kept), round(recomputed), loss)


def _layer(unit: Sequence[Parameter], config: Mapping[str, Any], dim: int, width: int) -> float:
    """Return bytes that a layer keeps of one token."""
    matrices, norms = [each for each in unit if len(each.shape) >= 2], _norms(unit, dim, width)
    widths = sum(_other_width(each.shape, dim) * _times(each, config) for each in matrices)
    inner = max((_other_width(each.shape, dim) * _times(each, config) for each in matrices), default=dim)
    function = config.get("hidden_act", config.get("activation_function"))
    is_gated = sum(_other_width(each.shape, dim) * _times(each, config) == inner for each in matrices) > 2
    # What comes in is kept by a layer's first norm, and by a block itself; the first blocks of all heads share it.
    is_later_block = not norms and ".blocks.0." not in unit[0].name
    values = widths + dim * is_later_block + inner * (_COMPOSED.get(str(function), 0) + is_gated)
    values += _repeated(config) if _attends(unit) else 0
    return width * values + norms


def _norms(unit: Sequence[Parameter], dim: int, width: int) -> float:
    """Bytes that the norms of a layer keep; those without a bias compute in float32, and keep what they have scaled."""
    names = {each.name for each in unit}
    norms = [each.name for each in unit if each.shape == (dim,) and each.name.endswith(".weight")]
    scaled = [name for name in norms if f"{name.removesuffix('.weight')}.bias" not in names]
    return dim * (len(norms) * _NORM_VALUES * width + len(scaled) * FULL_BYTES)


def _repeated(config: Mapping[str, Any]) -> int:
    """Values of keys and values that several query heads share: each gets its own where there is a mask."""
    heads, shared = _number(config, "num_attention_heads", "n_head"), _number(config, "num_key_value_heads")
    dim = _number(config, *_WIDTHS)
    if heads is None or shared is None or dim is None or shared >= heads:
        return 0
    head_dim = _number(config, "head_dim") or dim // heads
    return 2 * (heads - shared) * head_dim


def _attends(unit: Sequence[Parameter]) -> bool:
    return any("attn" in each.name or "attention" in each.name for each in unit)


def _times(parameter: Parameter, config: Mapping[str, Any]) -> float:
    """Return how often a matrix meets a token: of experts only some do."""
    if not _IN_EXPERTS.search(parameter.name):
        return 1
    experts, chosen = _number(config, *_EXPERTS), _number(config, "num_experts_per_tok")
    share = chosen / experts if experts and chosen else 1
    return share * math.prod(parameter.shape[:-2])


def _other_width(shape: Sequence[int], dim: int) -> int:
    first, second = shape[-2:]
    return first if second == dim else second


def _number(config: Mapping[str, Any], *names: str) -> int | None:
    return next((config[name] for name in names if type(config.get(name)) is int), None)
