"""Drafting how a released checkpoint with native heads loads: names of its modules, conventions of its family."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from transformers import CONFIG_MAPPING

from wmtp.authoring.native_families import DRAFTING, UNDRAFTED, Drafting, conventions_of
from wmtp.checkpoint.families import family_of
from wmtp.checkpoint.native_heads import declared_counts, further_layers, native_names
from wmtp.checkpoint.tensors import TensorInfo
from wmtp.untrusted import plain, show

CLASS_NAME = "NativeMTPForCausalLM"
_TRUNK = (r"^(model|lm_head)\.", r"trunk.\1.")
_TRUNK_LAYER = re.compile(r"trunk\.(?:\w+\.){0,3}layers\.(\d+)\.(.+)")


@dataclass(frozen=True)
class NativeDraft:
    """What a checkpoint with native heads needs in its metadata.json.

    Attributes:
        transforms: Names in the files -> names in the class.
        mtp: The declaration of its heads.
    """

    transforms: dict[str, str]
    mtp: dict[str, Any]


def draft_native(config: dict[str, Any], tensors: Sequence[TensorInfo], notes: list[str]) -> NativeDraft | None:
    """Draft the declaration of native heads; None where the files hold none, or none of a family that is known here.

    Args:
        config: config.json.
        tensors: What the headers declare.
        notes: Gets a sentence for what was guessed, or why nothing was.
    """
    names = [tensor.name for tensor in tensors]
    further = further_layers(config, names)
    found = [name for name in native_names(config, names) if name not in further]
    if not found:
        notes.extend(_lost(config))
        return None
    family, depth = family_of(config), _text(config).get("num_hidden_layers")
    drafting = DRAFTING.get(family.name) if family else None
    if family is None or drafting is None or type(depth) is not int:
        notes.append(_not_drafted(found, family.name if family else None))
        return None
    transforms, modules = _transforms(drafting, depth, names)
    renamed = {_renamed(transforms, tensor.name): tensor for tensor in tensors}
    stray = [tensor.name for name, tensor in renamed.items() if not name.startswith(("trunk.", "heads.", "shared_"))]
    if not modules or stray:
        what = f"{_some(stray or found)} do not have the names of {family.name}"
        notes.append(f"mtp: tensors of native heads are there, but {what}; declare them by hand")
        return None
    like = [_like(drafting, config, renamed, i) for i in range(modules)]
    if None in like:
        notes.append(_without_like(found, _attention(drafting, config, like.index(None))))
        return None
    notes.append(_assumed(family.name))
    conventions = {**conventions_of(family, drafting), "block_like": like}
    if drafting.trunk_type is not None and config.get("model_type") not in CONFIG_MAPPING:
        conventions["trunk_type"] = drafting.trunk_type
    return NativeDraft(transforms, _declaration(conventions, config, renamed))


def _without_like(found: Sequence[str], attention: str | None) -> str:
    return (
        f"mtp: tensors of native heads are there ({_some(found)}), and no layer of the trunk with such tensors has"
        f" their {plain(str(attention))}; declare them by hand"
    )


def _assumed(family: str) -> str:
    return (
        f"mtp.conventions: how the modules compute, by what is known of {family} models. None of it stands in the"
        " files, so that no check finds a wrong one: the heads would load, and predict badly. 'wmtp selftest --model'"
        " compares with transformers' own modules where it has them; docs/native_heads.md explains each field"
    )


def _lost(config: dict[str, Any]) -> Iterator[str]:
    counted = {field: count for field, count in declared_counts(config).items() if count != 0}
    if counted:
        field, count = next(iter(counted.items()))
        yield (
            f"mtp: config.json says {field}: {show(count)}, and the files hold no tensor of a native module: they were"
            " lost, as when a library that does not know them saves a model. To have them, take the release that still"
            " has them; without, set it to 0, or servers look for them"
        )


def _not_drafted(found: Sequence[str], family: str | None) -> str:
    why = UNDRAFTED.get(family or "")
    if why is None:
        return f"mtp: tensors of native heads are there ({_some(found)}), of no family that is known here"
    return (
        f"mtp: none; {len(found)} tensors of native heads are there ({_some(found)}), of {family}, and no declaration"
        f" describes its modules: {why}. They are neither loaded nor written; to draft with them, serve the release"
        " itself (docs/native_heads.md)"
    )


def _declaration(conventions: dict[str, Any], config: dict[str, Any], names: Iterable[str]) -> dict[str, Any]:
    held = set(names)
    for part, field in (("embed_tokens", "embedding"), ("unembedding", "unembedding")):
        if f"heads.2.{part}.weight" in held:
            conventions[field] = "copied"
    if "shared_post_norm.weight" in held:
        conventions["final_norm"] = "shared"
    if any(name.startswith("trunk.model.language_model.") for name in held):
        conventions["trunk_class"] = _first_architecture(config)
    return {
        "kind": "sequential",
        "n_future_tokens": 1 + len(conventions["block_like"]),
        "head_type": "deepseek",
        "conventions": conventions,
    }


def _transforms(drafting: Drafting, depth: int, names: Sequence[str]) -> tuple[dict[str, str], int]:
    """Return the rules that some name needs, in order, and the number of modules that they found."""
    rules: dict[str, str] = {}
    modules = 0
    for i in range(drafting.max_modules):
        own = dict(_of_module(drafting, i, depth))
        needed = {pattern: text for pattern, text in own.items() if any(re.search(pattern, name) for name in names)}
        if not any("mtp_block" in text for text in needed.values()):
            break
        rules |= needed
        modules += 1
    return rules | dict([_TRUNK]), modules


def _of_module(drafting: Drafting, i: int, depth: int) -> Iterator[tuple[str, str]]:
    def numbered(text: str) -> str:
        return text.replace("{i}", str(i)).replace("{n}", str(depth + i)).replace("{k}", str(i + 2))

    for pattern, text in drafting.parts:
        yield numbered(pattern), numbered(text)


def _renamed(transforms: dict[str, str], name: str) -> str:
    for pattern, text in transforms.items():
        name = re.sub(pattern, text, name)
    return name


def _like(drafting: Drafting, config: dict[str, Any], renamed: dict[str, TensorInfo], i: int) -> int | None:
    """Return the last layer of the trunk whose tensors, and attention where that is known, are those of a block.

    Where no layer has its tensors, loading finds out; another kind of attention would never show, so it gives None.
    """
    start = f"heads.{i + 2}.mtp_block."
    block = {name.removeprefix(start): tensor.shape for name, tensor in renamed.items() if name.startswith(start)}
    layers: dict[int, dict[str, tuple[int, ...]]] = {}
    for name, tensor in renamed.items():
        if found := _TRUNK_LAYER.fullmatch(name):
            layers.setdefault(int(found[1]), {})[found[2]] = tensor.shape
    fitting = [number for number, layer in sorted(layers.items()) if layer == block] or sorted(layers) or [0]
    kinds = _text(config).get("layer_types")
    wanted = _attention(drafting, config, i)
    if isinstance(kinds, list) and wanted is not None:
        fitting = [number for number in fitting if number < len(kinds) and kinds[number] == wanted]
    return fitting[-1] if fitting else None


def _attention(drafting: Drafting, config: dict[str, Any], i: int) -> str | None:
    said = _text(config).get("mtp_layer_types")
    return said[i] if isinstance(said, list) and i < len(said) and isinstance(said[i], str) else drafting.attention


def _first_architecture(config: dict[str, Any]) -> str | None:
    named = config.get("architectures")
    return named[0] if isinstance(named, list) and named and isinstance(named[0], str) else None


def _text(config: dict[str, Any]) -> dict[str, Any]:
    nested = config.get("text_config")
    return nested if isinstance(nested, dict) else config


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - 2} more" if names[2:] else ""
    return ", ".join(plain(name) for name in names[:2]) + more
