"""The modules of native heads that the tensors of a checkpoint hold, and what each of them lacks."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from wmtp.checkpoint.families import HeadLayout

_NUMBER = "(0|[1-9][0-9]*)"
# Parts of names by which heads of any family betray themselves.
_HEADLIKE = re.compile(r"(?:^|\.)(?:mtp\w*|nextn\w*|eh_proj|extra_heads)(?:\.|$)")
_TRUNK_LAYER = re.compile(rf"(?:model\.)?(?:language_model\.)?(?:model\.)?layers\.{_NUMBER}\.(.+)")
_EXPERT = re.compile(r"mlp\.experts\.(?:[0-9]+\.)?(gate_proj|up_proj|down_proj|gate_up_proj)(?:\.weight)?")
_DENSE = Counter(f"mlp.{part}_proj.weight" for part in ("gate", "up", "down"))


@dataclass(frozen=True)
class FoundModules:
    """What there is of a family's heads.

    Attributes:
        blocks: For each module, what its block's names have after the block's beginning.
        names: Every name of the checkpoint, without what means nothing in it.
        strays: Names that look like heads' and that the family does not have.
        depth: Number of layers of the trunk.
        trunk: The names of each layer of the trunk with full attention, after the layer's own beginning.
    """

    blocks: dict[int, set[str]]
    names: frozenset[str]
    strays: list[str]
    depth: int
    trunk: list[set[str]]

    def lacking(self, layout: HeadLayout, module: int) -> list[str]:
        """Return the names that a module needs and that are not there."""
        templates = [name for name in (layout.projection, *layout.norms) if name]
        numbers = {"i": module, "n": self.depth + module}
        needed = [template.format(**numbers) for template in templates]
        block = layout.block.format(**numbers)
        inside = _lacking_in_block(layout, self.blocks[module], self.trunk)
        return [*(name for name in needed if name not in self.names), *(block + name for name in inside)]


def find_modules(layout: HeadLayout, names: Iterable[str], *, depth: int, num_sublayers: int = 1) -> FoundModules:
    """Sort the names of a checkpoint into modules of a family, other parts of its heads, and strays.

    Args:
        layout: How the family names its heads.
        names: Every tensor's name.
        depth: Number of layers of the trunk, from which on some families number their modules.
        num_sublayers: Over how many numbered layers one module is spread.
    """
    plain_names = frozenset(name.replace(f".{layout.infix}", ".") if layout.infix else name for name in names)
    block = _pattern(layout.block)
    parts = [_pattern(part) for part in (layout.projection, *layout.norms, *layout.extra) if part]
    start = depth if "{n}" in layout.block else 0
    blocks: dict[int, set[str]] = {}
    strays, has_parts = [], False
    for name in plain_names:
        match = block.match(name)
        if match and int(match[1]) >= start:
            blocks.setdefault((int(match[1]) - start) // num_sublayers, set()).add(name[match.end() :])
        elif "{n}" not in layout.block and any(part.match(name) for part in parts):
            has_parts = True
        elif _HEADLIKE.search(name):
            strays.append(name)
    if has_parts and not blocks:
        blocks[0] = set()  # what stands round a block that is gone
    return FoundModules(blocks, plain_names, sorted(strays), depth, _attention_layers(plain_names, depth))


def head_like(names: Iterable[str]) -> list[str]:
    """Return the names that look like those of native heads, whatever the family."""
    return sorted(name for name in names if _HEADLIKE.search(name))


def _pattern(template: str) -> re.Pattern[str]:
    return re.compile(re.escape(template).replace(r"\{i\}", _NUMBER).replace(r"\{n\}", _NUMBER))


def _attention_layers(names: Iterable[str], depth: int) -> list[set[str]]:
    """Layers with another kind of attention tell nothing of a module's block, which has full attention."""
    layers: dict[int, set[str]] = {}
    for name in names:
        match = _TRUNK_LAYER.fullmatch(name)
        if match and int(match[1]) < depth:
            layers.setdefault(int(match[1]), set()).add(match[2])
    return [names for names in layers.values() if any(name.startswith("self_attn.") for name in names)]


def _lacking_in_block(layout: HeadLayout, block: set[str], trunk: Sequence[set[str]]) -> list[str]:
    if not block:
        return ["*"]
    if not layout.repeats_trunk or not trunk:
        return []
    # What quantisation adds is left out: it may stop before the heads.
    common = {name for name in set.intersection(*trunk) if name.endswith((".weight", ".bias"))}
    attention = sorted(name for name in common - block if not name.startswith("mlp."))
    own = _mlp_parts(block)
    return [*attention, *_lacking_in_mlp(own, _closest_mlp(layout, own, trunk))]


def _mlp_parts(block: Iterable[str]) -> Counter[str]:
    """How often each part of an MLP is there: once, or for each expert. Stacked experts count as one."""
    parts: Counter[str] = Counter()
    for name in block:
        if match := _EXPERT.fullmatch(name):
            kinds = ("gate_proj", "up_proj") if match[1] == "gate_up_proj" else (match[1],)
            parts.update(f"mlp.experts.{kind}" for kind in kinds)
        elif name.startswith("mlp.") and name.endswith(".weight"):
            parts[name] += 1
    return parts


def _closest_mlp(layout: HeadLayout, own: Counter[str], trunk: Sequence[set[str]]) -> Counter[str]:
    mlps = [_mlp_parts(layer) for layer in trunk]
    is_sparse = _is_sparse(own) if own else not layout.is_dense and any(map(_is_sparse, mlps))
    alike = [parts for parts in mlps if _is_sparse(parts) == is_sparse]
    known = alike or ([] if is_sparse else [_DENSE])
    return min(known, key=lambda parts: len(_lacking_in_mlp(own, parts)), default=Counter())


def _is_sparse(parts: Counter[str]) -> bool:
    return any(name.startswith("mlp.experts.") for name in parts)


def _lacking_in_mlp(own: Counter[str], expected: Counter[str]) -> list[str]:
    absent = [name for name in expected if not own[name]]
    fewer = [name for name in expected if 1 < own[name] < expected[name]]
    return sorted([*absent, *(f"{name} of {expected[name] - own[name]} of {expected[name]} experts" for name in fewer)])
