"""How tensors are named and divided in files: as they were read, so that what could read the source reads the copy."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from wmtp.checkpoint.tensors import TensorInfo
from wmtp.errors import CheckpointError, PlanError
from wmtp.load_plan.conversion.moved import moved_above, moved_below
from wmtp.load_plan.conversion.nodes import Made
from wmtp.load_plan.matching import sources_of
from wmtp.load_plan.plan import LoadPlan
from wmtp.metadata.schema import StateDictMapping
from wmtp.metadata.transforms import compile_transform

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Layout:
    """Names of tensors in files, and the mapping of metadata.json that leads from them to the model's own.

    Attributes:
        mapping: That mapping.
        sources: What each parameter is in the files, by each of its names; others have their own names there.
    """

    mapping: StateDictMapping = field(default_factory=StateDictMapping)
    sources: Mapping[str, TensorInfo | Made] = field(default_factory=dict)

    def stored(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return tensors as they stand in files, by their names there.

        Raises:
            CheckpointError: If a parameter was dequantised, which cannot be undone.
        """
        from wmtp.load_plan.conversion.inverse import stored_again

        sources = {name: self.sources[name] for name in tensors if name in self.sources}
        own = {name: tensor for name, tensor in tensors.items() if name not in sources}
        return {**stored_again(sources, {name: tensors[name] for name in sources}), **own}


def names_read(plan: LoadPlan) -> set[str]:
    """Return the name of each parameter to which its tensor's name led, of those that are tied to each other."""
    return {assignment.names[0] for assignment in plan.assignments if not assignment.repeats}


def layout_of(plan: LoadPlan, tensors: Mapping[str, Tensor]) -> Layout:
    """Return the layout in which a model was read, if it can be written in it; else that of its own names.

    What is written may be the model, a part of it, or a model of which it is a part.

    Args:
        plan: How it was read.
        tensors: What is to be written, by the model's own names.
    """
    kept = [assignment for assignment in plan.assignments if not assignment.repeats]
    mapping = plan.metadata.loading_strategy.state_dict_mapping
    if mapping.model_copy(update={"allow_missing": [], "allow_unexpected": []}) == StateDictMapping():
        return Layout()
    sources = {name: assignment.source for assignment in kept for name in assignment.names}
    for candidate in _candidates(mapping, sources, tensors):
        layout = _tried(candidate, tensors)
        if layout is not None:
            return layout
    return Layout()


def _candidates(
    mapping: StateDictMapping, sources: Mapping[str, TensorInfo | Made], tensors: Mapping[str, Tensor]
) -> Iterator[Layout]:
    yield Layout(mapping, sources)
    first = next(iter(sources), "")
    for name in tensors:
        if name.endswith(f".{first}"):
            prefix = name.removesuffix(first)
            own = sorted({other.split(".")[0] for other in tensors if not other.startswith(prefix)})
            yield Layout(moved_below(mapping, prefix, own), _renamed(sources, prefix.__add__))
            return
        if first.endswith(f".{name}"):
            prefix = first.removesuffix(name)
            inside = {name: source for name, source in sources.items() if name.startswith(prefix)}
            yield Layout(moved_above(mapping, prefix), _renamed(inside, operator.methodcaller("removeprefix", prefix)))
            return


def _renamed(sources: Mapping[str, TensorInfo | Made], rename: Callable[[str], str]) -> dict[str, TensorInfo | Made]:
    return {
        rename(name): replace(source, rule=rename(source.rule)) if isinstance(source, Made) else source
        for name, source in sources.items()
    }


def _tried(candidate: Layout, tensors: Mapping[str, Tensor]) -> Layout | None:
    """The layout without rules that would match nothing, if it leads from what is written to the model's names."""
    from wmtp.load_plan.parameters import DTYPE_NAMES

    sources = {name: source for name, source in candidate.sources.items() if name in tensors}
    try:
        stored = Layout(candidate.mapping, sources).stored(tensors)
        mapping = _without_idle_rules(candidate.mapping, list(stored), sources)
        infos = [
            TensorInfo(name, DTYPE_NAMES[tensor.dtype], tuple(tensor.shape), "", 0, tensor.nbytes)
            for name, tensor in stored.items()
        ]
        found = sources_of(mapping, infos, where="")
    except (CheckpointError, PlanError):
        return None
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    leads_back = {name: source.shape for name, (source, _) in found.items()} == shapes
    return Layout(mapping, sources) if leads_back and mapping != StateDictMapping() else None


def _without_idle_rules(
    mapping: StateDictMapping, names: list[str], sources: Mapping[str, TensorInfo | Made]
) -> StateDictMapping:
    """The rules that the stored names need: others, which left-out tensors needed, would match nothing."""
    prefix = mapping.remove_prefix
    has_prefix = prefix is not None and any(name.startswith(prefix) for name in names)
    names = [name.removeprefix(prefix or "") for name in names]
    transforms: dict[str, str] = {}
    for pattern, replacement in mapping.key_transforms.items():
        renamed = list(map(compile_transform(pattern, replacement), names))
        if any(name is not None for name in renamed):
            transforms[pattern] = replacement
        names = [old if new is None else new for old, new in zip(names, renamed, strict=True)]
    making = {source.rule for source in sources.values() if isinstance(source, Made)}
    return StateDictMapping(
        remove_prefix=prefix if has_prefix else None,
        add_prefix=mapping.add_prefix,
        key_transforms=transforms,
        tensors={target: rule for target, rule in mapping.tensors.items() if target in making},
    )
