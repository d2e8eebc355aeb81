"""How much the values of two stored tensors differ, read piece by piece: the memory needed has a bound."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from wmtp.checkpoint.tensors import DTYPE_BYTES, FLOATING, TensorInfo
from wmtp.storage.store import Store

if TYPE_CHECKING:
    import torch

_PIECE_BYTES = 16 << 20
_PIECE_VALUES = 1 << 20  # each takes about 50 bytes while it is measured in float64
_FLOATS = (*FLOATING, "F8_E4M3", "F8_E5M2")


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A tensor and where its bytes are.

    Attributes:
        store: The checkpoint's files.
        info: What the header says of it.
    """

    store: Store
    info: TensorInfo

    def read(self, start: int, length: int) -> bytes:
        """Return `length` bytes of its data from byte `start`, fewer at the end."""
        length = min(length, self.info.num_bytes - start)
        return self.store.read_range(self.info.file, self.info.start + start, length)

    def values(self, start: int, count: int) -> torch.Tensor:
        """Return `count` values from value `start`, fewer at the end, in one row and in the stored dtype."""
        import torch

        from wmtp.load_plan.parameters import TORCH_DTYPES

        width = DTYPE_BYTES[self.info.dtype]
        # A stored truth value may be any byte; torch promises nothing for those that are not 0 or 1.
        dtype = torch.uint8 if self.info.dtype == "BOOL" else TORCH_DTYPES[self.info.dtype]
        return torch.frombuffer(bytearray(self.read(start * width, count * width)), dtype=dtype)


@dataclass(frozen=True, slots=True)
class ValueDifference:
    """How much one tensor of A and one of B differ, measured in float64.

    Attributes:
        num_values: Values of the tensor.
        num_different: Places where they differ; NaN in both is no difference, NaN in one is.
        num_nan_in_both: Places with NaN in both.
        num_not_finite: Places where the difference is no finite number, as with NaN or infinity in one of them; the
            figures below leave these out.
        max_abs: The largest absolute difference.
        norm_a: The L2 norm of A's finite values.
        norm_difference: The L2 norm of the difference.
    """

    num_values: int
    num_different: int
    num_nan_in_both: int
    num_not_finite: int
    max_abs: float
    norm_a: float
    norm_difference: float

    @property
    def relative_l2(self) -> float | None:
        """The norm of the difference over that of A; None where A has none to divide by, or one beyond float64."""
        if self.norm_difference == 0:
            return 0.0
        ratio = self.norm_difference / self.norm_a if self.norm_a else math.inf
        return ratio if math.isfinite(ratio) else None


def have_same_bytes(a: StoredTensor, b: StoredTensor) -> bool:
    """Say whether two tensors of one size are the same to the last bit; reads no further than the first difference."""
    if a.info.num_bytes != b.info.num_bytes:
        return False
    starts = range(0, a.info.num_bytes, _PIECE_BYTES)
    return all(a.read(start, _PIECE_BYTES) == b.read(start, _PIECE_BYTES) for start in starts)


def measure_difference(a: StoredTensor, b: StoredTensor) -> ValueDifference:
    """Return how much two tensors of one shape differ; reads both whole."""
    return total_difference(_measured_pieces(a, b))


def total_difference(parts: Iterable[ValueDifference]) -> ValueDifference:
    """Return the difference of everything that the parts measure together."""
    found = list(parts)
    return ValueDifference(
        num_values=sum(part.num_values for part in found),
        num_different=sum(part.num_different for part in found),
        num_nan_in_both=sum(part.num_nan_in_both for part in found),
        num_not_finite=sum(part.num_not_finite for part in found),
        max_abs=max((part.max_abs for part in found), default=0.0),
        norm_a=math.hypot(*(part.norm_a for part in found)),
        norm_difference=math.hypot(*(part.norm_difference for part in found)),
    )


def _measured_pieces(a: StoredTensor, b: StoredTensor) -> Iterator[ValueDifference]:
    for start in range(0, a.info.num_elements, _PIECE_VALUES):
        yield _measured(a, b, a.values(start, _PIECE_VALUES), b.values(start, _PIECE_VALUES))


def _measured(a: StoredTensor, b: StoredTensor, first: torch.Tensor, second: torch.Tensor) -> ValueDifference:
    import torch

    one, two = first.double(), second.double()
    both_nan = one.isnan() & two.isnan()
    different = (one != two) & ~both_nan
    if a.info.dtype == b.info.dtype and a.info.dtype not in _FLOATS:
        # Whole numbers beyond 2**53 that differ may be one number in float64.
        bits = (torch.uint8, torch.int16, torch.int32, torch.int64)[first.element_size().bit_length() - 1]
        different = first.view(bits) != second.view(bits)
    change = (one - two)[different].abs()
    finite = change[change.isfinite()]
    return ValueDifference(
        num_values=one.numel(),
        num_different=int(different.sum()),
        num_nan_in_both=int(both_nan.sum()),
        num_not_finite=change.numel() - finite.numel(),
        max_abs=float(finite.max()) if finite.numel() else 0.0,
        norm_a=float(torch.linalg.vector_norm(one[one.isfinite()])),
        norm_difference=float(torch.linalg.vector_norm(finite)),
    )
