"""Tensors that a class has no parameters for: which of them a draft may leave unused, and as what."""

from __future__ import annotations

import glob
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from wmtp.checkpoint.contents import Checkpoint
from wmtp.checkpoint.native_heads import further_layers
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
    checkpoint: Checkpoint, model: nn.Module, unexpected: Sequence[TensorInfo], elsewhere: Collection[str]
) -> Unused:
    """Decide about tensors without a parameter.

    Args:
        checkpoint: Their files.
        model: The class that has no parameters for them.
        unexpected: Those tensors.
        elsewhere: Names of tensors, of a few layers that are alike, that other parts of a larger model are known to
            be made of.
    """
    held = [tensor.name for tensor in checkpoint.tensors]
    whole = _wholly_unused({tensor.name for tensor in unexpected}, held)
    further = further_layers(checkpoint.config, held)
    heads = {name: prefix for name, prefix in whole.items() if name not in further}
    predicting, ignored = _prediction_modules(heads, checkpoint.config), _ignored(model)
    parts = {whole.get(name, name) for name in elsewhere}

    def kind_of(tensor: TensorInfo) -> str:
        prefix = whole[tensor.name]
        is_part = prefix != tensor.name  # of a module of which the class builds nothing
        if is_part and prefix in predicting:
            return "heads"
        if prefix in parts or (is_part and any(map(_TOWER.fullmatch, prefix.split(".")))):
            return "towers"
        if is_harmless(tensor):
            return "harmless"
        is_ignored = ignored is not None and ignored.search(tensor.name)
        return "ignored" if is_ignored and (is_part or not telling(tensor.name)) else ""

    kinds: dict[str, list[TensorInfo]] = {}
    for tensor in unexpected:
        kinds.setdefault(kind_of(tensor), []).append(tensor)
    unused = Unused(refused=kinds.pop("", []))
    for kind, tensors in sorted(kinds.items()):
        globs = _globs(tensors, whole, of_all_layers=kind == "harmless")
        unused.globs += [each for each in globs if each not in unused.globs]
        if kind in _SAID:
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


def _globs(tensors: Iterable[TensorInfo], whole: Mapping[str, str], *, of_all_layers: bool) -> list[str]:
    globs = set()
    for tensor in tensors:
        prefix = whole[tensor.name]
        if prefix == tensor.name:
            globs.add(_NUMBER.sub("*", glob.escape(prefix)))
        else:
            module = glob.escape(prefix)
            globs.add(f"{_NUMBER.sub('*', module) if of_all_layers else module}.*")
    return sorted(globs)
