"""How large a model may ask to be: no larger than the tensors that would fill it.

config.json is a stranger's. Compared with the headers before anything is built, and kept to them while the class is
built, it cannot make this process build ten million layers or reserve a terabyte.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Self

from wmtp.checkpoint.tensors import TensorInfo
from wmtp.errors import PlanError
from wmtp.untrusted import first_few, plain, show

# Keys that say how many parts a model has, or how wide one is. Lengths of texts are not among them: rotary positions
# go beyond every dimension of the weights.
_SIZE = re.compile(
    r".*(?:layers?|heads|experts|vocab_size|hidden_size|intermediate_size|_dim|_labels|_tokens)|d_model|d_ff|n_embd|n_inner"
)
# Below these nothing is refused here: it costs little to build, and the plan then names what does not fit.
_HARMLESS_SIZE = 1 << 16
_HARMLESS_PARAMETERS = 4096
# Above these a class is rehearsed without memory first. Ranges are multiplied with each other.
_HARMLESS_ELEMENTS = 1 << 26
_HARMLESS_RANGE = 1 << 13
_HARMLESS_BUFFER_BYTES = 1 << 28


@dataclass(frozen=True)
class Bounds:
    """What a checkpoint's headers let its model ask for.

    Attributes:
        size: Of any one dimension, or number of parts.
        num_parameters: Parameters, each counted once, including those that ties and `allow_missing` leave without one.
        num_elements: Of any one tensor.
        range_length: Of a range of numbers that may be made without a rehearsal.
        buffer_bytes: Of all buffers together, persistent or not.
    """

    size: int
    num_parameters: int
    num_elements: int
    range_length: int
    buffer_bytes: int

    @classmethod
    def of_tensors(cls, tensors: Sequence[TensorInfo]) -> Self:
        """Return the bounds that these tensors give, generous enough for every honest model."""
        widest = max((max(tensor.shape, default=1) for tensor in tensors), default=1)
        largest = max((math.prod(tensor.shape) for tensor in tensors), default=1)
        return cls(
            size=max(_HARMLESS_SIZE, len(tensors), widest),
            num_parameters=_HARMLESS_PARAMETERS + 4 * len(tensors),
            num_elements=max(_HARMLESS_ELEMENTS, largest),
            range_length=_HARMLESS_RANGE,
            buffer_bytes=max(_HARMLESS_BUFFER_BYTES, 2 * sum(tensor.num_bytes for tensor in tensors)),
        )


def check_sizes(config: dict[str, Any], tensors: Sequence[TensorInfo], *, where: str) -> None:
    """Refuse a config.json that asks for more than the headers can fill, before anything is built.

    Raises:
        PlanError: Naming each key, what it asks for, and what the headers hold.
    """
    bound = Bounds.of_tensors(tensors).size
    faults = [f"{plain(key)} is {show(size)}" for key, size in _declared_sizes(config) if size > bound]
    if faults:
        raise PlanError(
            f"{where}/config.json: {', '.join(first_few(faults))}; the headers hold {len(tensors):,} tensors, and no"
            f" dimension of them is above {max((max(t.shape, default=1) for t in tensors), default=1):,}",
            hint="compare config.json with the one that the weights were saved with",
        )


def _declared_sizes(document: dict[str, Any], path: str = "") -> Iterator[tuple[str, int]]:
    for key, value in document.items():
        if type(value) is int and _SIZE.fullmatch(key):
            yield path + key, value
        elif isinstance(value, dict):
            yield from _declared_sizes(value, f"{path}{key}.")
