"""The stored tensors as a trace takes them: scales with their values, and of many layers that are alike a few."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from wmtp.authoring.drafting.expressions import Expression, Scaled, Shape, Stored, permuted, stored_in
from wmtp.checkpoint.quantisation import Quantisation
from wmtp.checkpoint.tensors import TensorInfo

_NUMBER = re.compile(r"[0-9]+")
_NUM_ALIKE = 3
_VALUES_PER_BYTE = 2


def stored_expressions(tensors: Iterable[TensorInfo], quantisation: Quantisation | None) -> dict[str, Expression]:
    """Return every tensor by its name; values and scales together by the name that the values would have plain."""
    held = {tensor.name: tensor for tensor in tensors}
    scaled = {} if quantisation is None else _scaled(held, quantisation)
    paired = {name for expression in scaled.values() for name in stored_in(expression)}
    whole = {name: Stored(name, tensor.shape) for name, tensor in held.items() if name not in paired}
    return whole | scaled


def _scaled(held: Mapping[str, TensorInfo], quantisation: Quantisation) -> dict[str, Expression]:
    ending, scales_ending = quantisation.endings
    make = _mxfp4 if quantisation.kind == "mxfp4" else _fp8
    found = {}
    for name, scales in held.items():
        base = name.removesuffix(scales_ending)
        if base != name and base + ending in held:
            values = held[base + ending]
            found[base] = make(
                Stored(values.name, values.shape), Stored(scales.name, scales.shape), quantisation.block or ()
            )
    return found


def _fp8(values: Stored, scales: Stored, block: Shape) -> Expression:
    return Scaled("fp8_block", block, values, scales, values.shape)


def _mxfp4(values: Stored, scales: Stored, block: Shape) -> Expression:
    *outer, groups, size = values.shape if len(values.shape) > 1 else (1, *values.shape)
    plain = Scaled("mxfp4", block, values, scales, (*outer, groups * size * _VALUES_PER_BYTE))
    # transformers has such matrices the other way round: what is multiplied with is the last dimension in the file.
    dims = len(plain.shape)
    return permuted(plain, (*range(dims - 2), dims - 1, dims - 2)) if dims > 1 else plain


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
    return isinstance(expression, Stored), expression.shape


def _some(layers: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    ordered = sorted(layers, key=lambda layer: (len(layer[1]), layer[1]))
    return ordered if len(ordered) <= _NUM_ALIKE else [*ordered[: _NUM_ALIKE - 1], ordered[-1]]
