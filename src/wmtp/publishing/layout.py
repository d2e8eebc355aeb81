"""How tensors are named and divided in files: as they were read, so that what could read the source reads the copy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from wmtp.checkpoint.tensors import TensorInfo
from wmtp.errors import CheckpointError, PlanError
from wmtp.load_plan.conversion.nodes import Made
from wmtp.load_plan.matching import sources_of
from wmtp.load_plan.plan import Assignment, LoadPlan
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


def layout_of(plan: LoadPlan, tensors: Mapping[str, Tensor]) -> Layout:
    """Return the layout in which a model was read, if it can be written in it; else that of its own names.

    Args:
        plan: How it was read.
        tensors: What is to be written, by the model's own names.
    """
    kept = [assignment for assignment in plan.assignments if not assignment.repeats]
    mapping = _without_idle_rules(plan.metadata.loading_strategy.state_dict_mapping, kept)
    layout = Layout(mapping, {name: assignment.source for assignment in kept for name in assignment.names})
    return layout if mapping != StateDictMapping() and _leads_back(layout, tensors) else Layout()


def _without_idle_rules(mapping: StateDictMapping, kept: Sequence[Assignment]) -> StateDictMapping:
    """The rules that tensors needed which are written again; others would match nothing, and be refused."""
    names = [tensor.name for assignment in kept for tensor in assignment.tensors]
    prefix = mapping.remove_prefix
    has_prefix = prefix is not None and any(name.startswith(prefix) for name in names)
    names = [name.removeprefix(prefix or "") for name in names]
    transforms: dict[str, str] = {}
    for pattern, replacement in mapping.key_transforms.items():
        renamed = list(map(compile_transform(pattern, replacement), names))
        if any(name is not None for name in renamed):
            transforms[pattern] = replacement
        names = [old if new is None else new for old, new in zip(names, renamed, strict=True)]
    making = {assignment.source.rule for assignment in kept if isinstance(assignment.source, Made)}
    return StateDictMapping(
        remove_prefix=prefix if has_prefix else None,
        add_prefix=mapping.add_prefix,
        key_transforms=transforms,
        tensors={target: rule for target, rule in mapping.tensors.items() if target in making},
    )


def _leads_back(layout: Layout, tensors: Mapping[str, Tensor]) -> bool:
    """Whether the mapping makes of what would be written exactly the tensors that it was written of."""
    from wmtp.load_plan.parameters import DTYPE_NAMES

    try:
        stored = layout.stored(tensors)
        infos = [
            TensorInfo(name, DTYPE_NAMES[tensor.dtype], tuple(tensor.shape), "", 0, tensor.nbytes)
            for name, tensor in stored.items()
        ]
        found = sources_of(layout.mapping, infos, where="")
    except (CheckpointError, PlanError):
        return False
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    return {name: source.shape for name, (source, _) in found.items()} == shapes
