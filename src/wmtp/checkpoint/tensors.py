"""What a header says of one tensor."""

from __future__ import annotations

import math
from dataclasses import dataclass

DTYPE_BYTES = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1, "F8_E8M0": 1,
    "U16": 2, "I16": 2, "F16": 2, "BF16": 2,
    "U32": 4, "I32": 4, "F32": 4,
    "U64": 8, "I64": 8, "F64": 8,
}  # fmt: skip
FLOATING = ("F64", "F32", "F16", "BF16")


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One tensor of a checkpoint, as its header declares it.

    Attributes:
        name: Its name in the file.
        dtype: In safetensors' notation: `F32`, `BF16`, `I64`, ...
        shape: Its dimensions.
        file: The file that holds it, relative to the checkpoint.
        start: First byte of its data in that file.
        end: One past its last byte.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    file: str
    start: int
    end: int

    @property
    def num_bytes(self) -> int:
        """Bytes of data."""
        return self.end - self.start

    @property
    def num_elements(self) -> int:
        """Number of values."""
        return math.prod(self.shape)
