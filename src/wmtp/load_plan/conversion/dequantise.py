"""Values that are stored in fewer bits, times their scales."""

from __future__ import annotations

import torch
from torch import Tensor

from wmtp.load_plan.conversion.nodes import Dequantised
from wmtp.load_plan.parameters import TORCH_DTYPES

# The sixteen values of a 4-bit float with two bits of exponent and one of mantissa (OCP Microscaling Formats 1.0).
_FP4_VALUES = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0)
_EXPONENT_BIAS = 127


def dequantised(node: Dequantised, values: Tensor, scales: Tensor) -> Tensor:
    """Return values in the dtype that is declared for them.

    Args:
        node: Which kind they are of.
        values: `[..., rows, columns]` in F8_E4M3, or `[..., groups, 16]` bytes of two 4-bit floats, lower bits first.
        scales: One for each block, or a biased exponent for each group.

    Returns:
        `[..., rows, columns]`, or `[..., groups * 32]`.
    """
    dtype = TORCH_DTYPES[node.dtype]
    if node.kind == "mxfp4":
        return _mxfp4(values, scales.view(torch.uint8), dtype)
    rows, columns = values.shape[-2:]
    each = scales.float().repeat_interleave(node.block[0], dim=-2).repeat_interleave(node.block[1], dim=-1)
    return (values.float() * each[..., :rows, :columns]).to(dtype)


def _mxfp4(values: Tensor, exponents: Tensor, dtype: torch.dtype) -> Tensor:
    table = torch.tensor(_FP4_VALUES, dtype=dtype)
    both = torch.stack([table[(values & 0x0F).int()], table[(values >> 4).int()]], dim=-1).flatten(-2)
    scaled = torch.ldexp(both, exponents.int().unsqueeze(-1) - _EXPONENT_BIAS)
    return scaled.to(dtype).flatten(-2)
