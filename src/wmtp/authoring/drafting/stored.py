"""The stored tensors as a trace takes them: scales with their values, and of many layers that are alike a few."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from wmtp.authoring.drafting.expressions import Expression, Scaled, Stored
from wmtp.checkpoint.quantisation import Quantisation
from wmtp.checkpoint.tensors import TensorInfo

_NUMBER = re.compile(r"[0-9]+")
_NUM_ALIKE = 3
_VALUES_PER_BYTE = 2


def stored_expressions(tensors: Iterable[TensorInfo], quantisation: Quantisation | None) -> dict[str, Expression]:
    """Return every tensor by its name; values and scales together by the name that the values would have plain."""
    held = {tensor.name: tensor for tensor in tensors}
    pairs = {} if quantisation is None else _pairs(held, quantisation)
    paired = {tensor.name for pair in pairs.values() for tensor in (pair.values, pair.scales)}
    whole: dict[str, Expression] = {
        name: Stored(name, tensor.shape) for name, tensor in held.items() if name not in paired
    }
    return whole | pairs


def _pairs(held: Mapping[str, TensorInfo], quantisation: Quantisation) -> dict[str, Scaled]:
    ending, scales_ending = quantisation.endings
    pairs = {}
    for name, scales in held.items():
        base = name.removesuffix(scales_ending)
        if base != name and base + ending in held:
            pairs[base] = _pair(held[base + ending], scales, quantisation)
    return pairs


def _pair(values: TensorInfo, scales: TensorInfo, quantisation: Quantisation) -> Scaled:
    shape = values.shape
    if quantisation.kind == "mxfp4":
        shape = (*shape[:-2], shape[-2] * shape[-1] * _VALUES_PER_BYTE) if len(shape) > 1 else shape
    block = quantisation.block or ()
    return Scaled(quantisation.kind, block, Stored(values.name, values.shape), Stored(scales.name, scales.shape), shape)


def representatives(stored: Mapping[str, Expression]) -> dict[str, Expression]:
    """Return the tensors of a few of those layers that have the same tensors in the same shapes."""
    layers: dict[tuple[str, str], list[tuple[str, Expression]]] = defaultdict(list)
    kept: dict[str, Expression] = {}
    for name, expression in stored.items():
        if found := _NUMBER.search(name):
            layers[name[: found.start()], found.group()].append((name[found.end() :], expression))
        else:
            kept[name] = expression
    alike: dict[object, list[tuple[str, str]]] = defaultdict(list)
    for layer, parts in layers.items():
        alike[layer[0], frozenset((rest, _shapes(expression)) for rest, expression in parts)].append(layer)
    for same in alike.values():
        for layer in _some(same):
            kept |= {"".join((*layer, rest)): expression for rest, expression in layers[layer]}
    return kept


def _shapes(expression: Expression) -> object:
    return (expression.shape, expression.kind, expression.block) if isinstance(expression, Scaled) else expression.shape


def _some(layers: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    ordered = sorted(layers, key=lambda layer: (len(layer[1]), layer[1]))
    return ordered if len(ordered) <= _NUM_ALIKE else [*ordered[: _NUM_ALIKE - 1], ordered[-1]]
