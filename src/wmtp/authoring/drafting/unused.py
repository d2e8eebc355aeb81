"""Tensors that a class has no parameters for: which of them a draft may leave unused, and as what."""

from __future__ import annotations

import glob
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from transformers import PreTrainedModel

from wmtp.checkpoint.tensors import TensorInfo
from wmtp.load_plan.leftovers import is_harmless, telling
from wmtp.untrusted import plain

_NUMBER = re.compile(r"(?<=\.)\d+(?=\.)")
# Parts of a larger model, by the modules that its tensors are in.
_TOWER = re.compile(
    r"(?:\w*_)?(?:vision|visual|vit|image|img|audio|speech|video|sam|siglip|perceive|perceiver|resampler|talker|token2wav"
    r"|code2wav|connector|mm|multi_modal|multimodal|vq|vqmodel|aligner|adaptor|projector)(?:_\w+|model|module|tokenizer)?"
    r"|mlp1|embed_(?:vision|audio)"
)
_PREDICTION = re.compile(r"(?:.*\.)?(?:mtp\w*|enorm|hnorm|eh_proj|shared_head|nextn\w*)(?:\..*)?")


@dataclass
class Unused:
    """What a draft leaves unused.

    Attributes:
        globs: For `allow_unexpected`.
        notes: What the tensors are, a sentence for each kind.
        refused: Those of which nothing is known that would let them be left.
    """

    globs: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    refused: list[TensorInfo] = field(default_factory=list)


def leave_unused(
    unexpected: Sequence[TensorInfo], held: Iterable[str], config: Mapping[str, Any], model: Any
) -> Unused:
    """Decide about tensors without a parameter.

    Args:
        unexpected: Those tensors.
        held: The names of all.
        config: config.json, for the number of layers.
        model: The class that has no parameters for them.
    """
    whole = _wholly_unused({tensor.name for tensor in unexpected}, held)
    predicting = _prediction_modules(whole, config)
    ignored = _ignored(model)
    kinds: dict[str, list[TensorInfo]] = {"heads": [], "towers": [], "ignored": [], "harmless": []}
    unused = Unused()
    for tensor in unexpected:
        prefix = whole[tensor.name]
        is_part = prefix != tensor.name  # of a module of which the class builds nothing
        if is_part and (prefix in predicting):
            kinds["heads"].append(tensor)
        elif is_part and any(map(_TOWER.fullmatch, prefix.split("."))):
            kinds["towers"].append(tensor)
        elif is_harmless(tensor):
            kinds["harmless"].append(tensor)
        elif ignored is not None and ignored.search(tensor.name) and (is_part or not telling(tensor.name)):
            kinds["ignored"].append(tensor)
        else:
            unused.refused.append(tensor)
    for kind, tensors in kinds.items():
        globs = _globs(tensors, whole)
        unused.globs += [each for each in globs if each not in unused.globs]
        if tensors and kind in _SAID:
            unused.notes.append(f"{', '.join(map(plain, globs))} ({len(tensors):,} tensors) {_SAID[kind]}")
    return unused


_SAID = {
    "heads": "are prediction heads, which this class drops: it neither loads nor writes them",
    "towers": "are parts of a larger model, which this class does not build",
    "ignored": "are left out by transformers too, as this class has no use for them",
}


def _wholly_unused(unexpected: set[str], held: Iterable[str]) -> dict[str, str]:
    """For each name the shortest leading part that no tensor with a parameter has, in whole parts; or itself."""
    used: set[str] = set()
    for name in held:
        if name not in unexpected:
            parts = name.split(".")
            used |= {".".join(parts[:end]) for end in range(1, len(parts) + 1)}
    found = {}
    for name in unexpected:
        parts = name.split(".")
        starts = (".".join(parts[:end]) for end in range(1, len(parts)))
        found[name] = next((start for start in starts if start not in used), name)
    return found


def _prediction_modules(whole: Mapping[str, str], config: Mapping[str, Any]) -> set[str]:
    """The modules among them that predict tokens further ahead: by what is in them, or as layers behind the last."""
    named = {prefix for name, prefix in whole.items() if _PREDICTION.fullmatch(name)}
    text = config.get("text_config")
    counts = [place.get("num_hidden_layers") for place in (config, text) if isinstance(place, dict)]
    last = next((count for count in counts if type(count) is int), None)
    return named | {
        prefix
        for prefix in whole.values()
        if last is not None and (found := re.fullmatch(r".*layers\.(\d+)", prefix)) and int(found[1]) >= last
    }


def _ignored(model: Any) -> re.Pattern[str] | None:
    patterns = sorted(model._keys_to_ignore_on_load_unexpected or ()) if isinstance(model, PreTrainedModel) else []
    return re.compile("|".join(f"(?:{pattern})" for pattern in patterns)) if patterns else None


def _globs(tensors: Iterable[TensorInfo], whole: Mapping[str, str]) -> list[str]:
    globs = set()
    for tensor in tensors:
        prefix = whole[tensor.name]
        if prefix == tensor.name:
            globs.add(_NUMBER.sub("*", glob.escape(prefix)))
        else:
            globs.add(f"{glob.escape(prefix)}.*")
    return sorted(globs)
