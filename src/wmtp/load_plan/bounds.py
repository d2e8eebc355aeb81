"""How much a class may ask for while it is built: no more than the tensors that would fill it.

config.json is a stranger's. Compared with the headers before anything is built (`checkpoint.sizes`), and kept to them
here, it cannot make this process build ten million layers or reserve a terabyte.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from wmtp.checkpoint.tensors import TensorInfo

_HARMLESS_PARAMETERS = 4096
# Above these a class is rehearsed without memory first. Ranges are multiplied with each other.
_HARMLESS_ELEMENTS = 1 << 26
_HARMLESS_RANGE = 1 << 13
_HARMLESS_BUFFER_BYTES = 1 << 28


@dataclass(frozen=True)
class Bounds:
    """What a checkpoint's headers let its model ask for.

    Attributes:
        num_parameters: Parameters, each counted once, including those that ties and `allow_missing` leave without one.
        num_elements: Of any one tensor.
        range_length: Of a range of numbers that may be made without a rehearsal.
        buffer_bytes: Of all buffers together, persistent or not.
    """

    num_parameters: int
    num_elements: int
    range_length: int
    buffer_bytes: int

    @classmethod
    def of_tensors(cls, tensors: Sequence[TensorInfo]) -> Self:
        """Return the bounds that these tensors give, generous enough for every honest model."""
        # One parameter may be made of many tensors, and a byte may hold two values.
        together = 2 * sum(math.prod(tensor.shape) for tensor in tensors)
        return cls(
            num_parameters=_HARMLESS_PARAMETERS + 4 * len(tensors),
            num_elements=max(_HARMLESS_ELEMENTS, together),
            range_length=_HARMLESS_RANGE,
            buffer_bytes=max(_HARMLESS_BUFFER_BYTES, 2 * sum(tensor.num_bytes for tensor in tensors)),
        )
