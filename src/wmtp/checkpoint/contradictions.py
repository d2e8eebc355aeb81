"""Which key of config.json contradicts the tensors or another key: what a library says of it in its own words."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from wmtp.checkpoint.native_heads import COUNTS
from wmtp.checkpoint.sizes import SIZE
from wmtp.checkpoint.tensors import TensorInfo
from wmtp.untrusted import first_few, plain, show

VOCABULARY, LABELS = ("vocab_size",), ("num_labels", "id2label")
_POSITIONS = ("max_position_embeddings", "n_positions", "max_sequence_length", "n_ctx")
# Which keys say how many rows a tensor has, by the last part of its name but one.
_ROWS = {
    **dict.fromkeys(
        ("embed_tokens", "wte", "word_embeddings", "embed_in", "tok_embeddings", "embeddings", "embedding", "shared"),
        VOCABULARY,
    ),
    **dict.fromkeys(("lm_head", "embed_out"), VOCABULARY),
    **dict.fromkeys(("score", "classifier", "classification_head"), LABELS),
    **dict.fromkeys(("wpe", "position_embeddings", "embed_positions"), _POSITIONS),
}
_HEAD_SIZES = ("num_attention_heads", "num_key_value_heads", "head_dim")
_HEADS = {"q_proj": "num_attention_heads", "k_proj": "num_key_value_heads", "v_proj": "num_key_value_heads"}
_WIDTHS = ("hidden_size", "n_embd", "d_model")
_DEPTHS = ("num_hidden_layers", "n_layer", "num_layers")
_WIDTH = re.compile(r".*(?:vocab_size|hidden_size|intermediate_size|_dim)|d_model|d_ff|n_embd|n_inner")
_MORE_SIZES = (*_POSITIONS, *_DEPTHS, "n_head")
_NEVER_ZERO = re.compile(r".*(?:vocab_size|hidden_size|intermediate_size|heads|head_dim|_layers)|n_embd|d_model|n_head")
_LAYER = re.compile(r"(?:[A-Za-z_]\w*\.){0,3}(?:layers|layer|h|blocks)\.(\d{1,6})\.")
_ADVICE = {
    "vocab_size": " if the embeddings were resized on purpose",
    "num_labels": ", and as many entries in id2label and label2id where they are there",
}
_MAX_KEYS = 3


@dataclass(frozen=True)
class Contradiction:
    """A size that config.json gives and a tensor has not.

    Attributes:
        key: Its path in config.json; where that file does not have it, what it would be called.
        said: The size there, None where the class's own default counts.
        wanted: What the model has.
        found: What the tensor has.
    """

    key: str
    said: int | None
    wanted: int
    found: int

    def __str__(self) -> str:
        if self.said is None:
            return f"config.json has no {self.key}, and the class then takes {self.wanted:,}, not {self.found:,}"
        verb = "counts" if self.key.rpartition(".")[2] == "id2label" else "is"
        return f"{plain(self.key)} in config.json {verb} {self.said:,}, not {self.found:,}"

    @property
    def advice(self) -> str:
        """The line that would mend it."""
        last = self.key.rpartition(".")[2]
        if last == "id2label":
            return f"give {plain(self.key)} and label2id in config.json {self.found:,} entries"
        return f'write "{plain(self.key.partition(" ")[0])}": {self.found} in config.json{_ADVICE.get(last, "")}'


def shape_contradictions(config: dict[str, Any], tensor: TensorInfo, wanted: Sequence[int]) -> list[Contradiction]:
    """Return the sizes in config.json that give a parameter a shape which its tensor has not.

    Args:
        config: config.json.
        tensor: The tensor.
        wanted: The shape of the parameter, as the class makes it of config.json.
    """
    if len(tensor.shape) != len(wanted):
        return []
    sizes = dict(_sizes(config))
    differing = [axis for axis, size in enumerate(wanted) if size != tensor.shape[axis]]
    found = [each for axis in differing for each in _of_axis(sizes, tensor, axis, wanted[axis])]
    return found[:_MAX_KEYS]


def _of_axis(sizes: dict[str, int], tensor: TensorInfo, axis: int, wanted: int) -> Iterator[Contradiction]:
    keys = _keys_of_rows(tensor) if axis == 0 else ()
    of_rows = {path: size for path, size in sizes.items() if path.rpartition(".")[2] in keys}
    # Projections of attention are as wide as all heads together, or as the model.
    kinds = re.compile("|".join(_WIDTHS)) if _part(tensor) in (*_HEADS, "o_proj") else _WIDTH
    widths = {path: size for path, size in sizes.items() if kinds.fullmatch(path.rpartition(".")[2])}
    for path, size in (of_rows if keys else widths).items():
        if size == wanted:
            yield Contradiction(path, wanted, wanted, tensor.shape[axis])
    if axis == 0:
        yield from _of_heads(sizes, tensor, wanted)
    if keys and not of_rows:
        yield Contradiction(" or ".join(keys[:2]), None, wanted, tensor.shape[axis])


def _of_heads(sizes: dict[str, int], tensor: TensorInfo, wanted: int) -> Iterator[Contradiction]:
    """The sizes of which a projection's rows are the product."""
    if (key := _HEADS.get(_part(tensor))) is None:
        return
    given, found = _sizes_of_heads(sizes), tensor.shape[0]
    heads, width = given.get(key, 0), given.get("head_dim", 0)
    if heads > 0 and width > 0 and wanted == heads * width:
        yield Contradiction(key, sizes.get(key), heads, found // width)
        yield Contradiction("head_dim", sizes.get("head_dim"), width, found // heads)


def _sizes_of_heads(sizes: dict[str, int]) -> dict[str, int]:
    """Return how many heads there are and how wide; nothing where config.json leaves more than one to guess."""
    heads, hidden = sizes.get("num_attention_heads", 0), sizes.get("hidden_size", 0)
    pairs = sizes.get("num_key_value_heads", heads)
    width = sizes.get("head_dim", hidden // heads if heads > 0 and "num_key_value_heads" not in sizes else 0)
    return dict(zip(_HEAD_SIZES, (heads, pairs, width), strict=True)) if min(heads, pairs, width) > 0 else {}


def without_coincidences(
    found: Sequence[Sequence[Contradiction]], config: dict[str, Any], tensors: Sequence[TensorInfo]
) -> list[list[Contradiction]]:
    """Return contradictions without sizes that only happen to be equal to that of a parameter which does not fit.

    Dropped is a key that another tensor proves right, and one that would have to be several sizes at once.

    Args:
        found: For each parameter that does not fit, what `shape_contradictions` returned.
        config: config.json.
        tensors: All tensors of the checkpoint.
    """
    held = {key: size for key, (size, _) in _held_sizes(tensors).items()} | _held_heads(config, tensors)
    wanted: dict[str, set[int]] = {}
    for each in chain.from_iterable(found):
        wanted.setdefault(each.key, set()).add(each.found)

    def is_likely(each: Contradiction) -> bool:
        proven = held.get(each.key.rpartition(".")[2])
        is_only_one = len(wanted[each.key]) == 1 and each.key not in _HEAD_SIZES
        is_proven_right = each.said is not None and each.said == proven
        return not is_proven_right and (is_only_one or each.found == proven)

    return [[each for each in some if is_likely(each)] for some in found]


def _held_heads(config: dict[str, Any], tensors: Sequence[TensorInfo]) -> dict[str, int]:
    """Return the sizes of heads of which queries and keys are made, where at most one is not what config.json says."""
    given, rows = _sizes_of_heads(dict(_sizes(config))), {_part(each): each.shape[0] for each in tensors if each.shape}
    queries, keys = rows.get("q_proj", 0), rows.get("k_proj", 0)
    if not given or not queries or not keys:
        return {}
    heads, pairs, width = given.values()
    for likely in ((heads, keys // width, width), (queries // width, pairs, width), (heads, pairs, queries // heads)):
        if likely[0] * likely[2] == queries and likely[1] * likely[2] == keys:
            return dict(zip(_HEAD_SIZES, likely, strict=True))
    return {}


def impossible_values(config: dict[str, Any], tensors: Sequence[TensorInfo]) -> list[str]:
    """Return the values in config.json of which no model is made, with what the tensors have instead.

    A class may have its own reasons to take such a value: nothing is refused for it where the model can be built.
    """
    held = _held_sizes(tensors)
    return first_few(list(_impossible(config, held)))


def other_sizes(config: dict[str, Any], tensors: Sequence[TensorInfo]) -> list[str]:
    """Return the sizes in config.json that are others than names and shapes of the tensors tell."""
    held = _held_sizes(tensors)
    said = [(key, size, *held[key]) for key, size in _sizes(config) if key in held and key not in _POSITIONS]
    return first_few([f"{key} is {size:,}, but {told}" for key, size, found, told in said if size != found])


def _held_sizes(tensors: Sequence[TensorInfo]) -> dict[str, tuple[int, str]]:
    """Sizes that names and shapes of tensors give, by the key of config.json that should say the same, and of what."""
    held: dict[str, tuple[int, str]] = {}
    layers = 0
    for tensor in tensors:
        told = f"{plain(tensor.name)} in {plain(tensor.file)}"
        if keys := tensor.shape and _keys_of_rows(tensor):
            held |= {key: (tensor.shape[0], f"{told} has {tensor.shape[0]:,} rows") for key in keys if key not in held}
        if keys == VOCABULARY and len(tensor.shape) == 2:
            held |= dict.fromkeys(_WIDTHS, (tensor.shape[1], f"{told} has {tensor.shape[1]:,} columns"))
        if number := _LAYER.match(tensor.name):
            layers = max(layers, int(number[1]) + 1)
    return held | dict.fromkeys(_DEPTHS, (layers, f"the tensors are of {layers:,} layers")) if layers else held


def _impossible(config: dict[str, Any], held: dict[str, tuple[int, str]], path: str = "") -> Iterator[str]:
    for key, value in config.items():
        told = f": {held[key][1]}" if key in held else ""
        if isinstance(value, dict) and key != "id2label":
            yield from _impossible(value, held, f"{path}{plain(key)}.")
        elif wrong := _wrong_with(key, value):
            yield f"{path}{plain(key)} is {show(value)}, {wrong}{told}"
    size, padding = config.get("vocab_size"), config.get("pad_token_id")
    if type(size) is int and type(padding) is int and size > 0 and not -size <= padding < size:
        told = f": {held['vocab_size'][1]}" if "vocab_size" in held else ""
        yield f"{path}pad_token_id is {padding}, but vocab_size is {size}, so that ids end at {size - 1}{told}"


def _wrong_with(key: str, value: Any) -> str | None:
    if key == "id2label":
        numbered = isinstance(value, dict) and all(number.isdecimal() for number in value)
        return None if numbered or value is None else "which is no object of numbers and names"
    if key in COUNTS:
        return None  # no native heads is a number of them
    if key == "pad_token_id" or _NEVER_ZERO.fullmatch(key):
        if isinstance(value, str | bool | float):
            return "which is no whole number"
        return "which is no size" if type(value) is int and value <= 0 and key != "pad_token_id" else None
    return "which is no size" if type(value) is int and value < 0 and SIZE.fullmatch(key) else None


def _sizes(document: dict[str, Any], path: str = "") -> Iterator[tuple[str, int]]:
    for key, value in document.items():
        if key == "id2label" and isinstance(value, dict):
            yield path + key, len(value)
        elif type(value) is int and (SIZE.fullmatch(key) or key in _MORE_SIZES):
            yield path + key, value
        elif isinstance(value, dict):
            yield from _sizes(value, f"{path}{key}.")


def _keys_of_rows(tensor: TensorInfo) -> tuple[str, ...]:
    return _ROWS.get(_part(tensor), ())


def _part(tensor: TensorInfo) -> str:
    """The module that a tensor belongs to."""
    return tensor.name.split(".")[-2:][0]
