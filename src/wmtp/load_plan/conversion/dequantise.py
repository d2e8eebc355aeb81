"""Values that are stored in fewer bits, times their scales."""

from __future__ import annotations

import torch
from torch import Tensor

from wmtp.load_plan.conversion.nodes import Dequantised
from wmtp.load_plan.parameters import TORCH_DTYPES

# The sixteen values of a 4-bit float with two bits of exponent and one of mantissa (OCP Microscaling Formats 1.0).
_FP4_VALUES = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0)
_EXPONENT_BIAS = 127
_VALUES_AT_ONCE = 1 << 20  # computed in float32, beside the result


def dequantised(node: Dequantised, values: Tensor, scales: Tensor) -> Tensor:
    """Return values in the dtype that is declared for them, computed in float32 and rounded once.

    Args:
        node: Which kind they are of.
        values: `[..., rows, columns]` in F8_E4M3, or `[..., groups, 16]` bytes of two 4-bit floats, lower bits first.
        scales: One for each block, or a biased exponent for each group.

    Returns:
        `[..., rows, columns]`, or `[..., groups * 32]`.
    """
    result = torch.empty(node.shape, dtype=TORCH_DTYPES[node.dtype])
    if node.kind == "mxfp4":
        _fill_mxfp4(result, values, scales.view(torch.uint8))
    else:
        matrices = [each[None].flatten(0, -3) for each in (result, values, scales)]
        for into, matrix, blocks in zip(*matrices, strict=True):
            _fill_fp8(into, matrix, blocks.float(), node.block)
    return result


def _fill_fp8(result: Tensor, matrix: Tensor, scales: Tensor, block: tuple[int, ...]) -> None:
    rows, columns = matrix.shape
    # The last block of a row or column may be cut short by the edge.
    block_rows, block_columns = min(block[0], max(rows, 1)), min(block[1], max(columns, 1))
    num_blocks = max(1, _VALUES_AT_ONCE // max(1, block_rows * columns))
    for first in range(0, len(scales), num_blocks):
        some = slice(first * block_rows, (first + num_blocks) * block_rows)
        by_row = scales[first : first + num_blocks].repeat_interleave(block_rows, dim=0)[: len(matrix[some])]
        result[some] = matrix[some].float() * by_row.repeat_interleave(block_columns, dim=1)[:, :columns]


def _fill_mxfp4(result: Tensor, values: Tensor, exponents: Tensor) -> None:
    table = torch.tensor(_FP4_VALUES)
    pairs, groups, powers = result.view(-1, 16, 2), values.reshape(-1, 16), exponents.reshape(-1, 1)
    for first in range(0, len(groups), _VALUES_AT_ONCE // 32):
        some = slice(first, first + _VALUES_AT_ONCE // 32)
        scale = powers[some].int() - _EXPONENT_BIAS
        for half, bits in enumerate((groups[some] & 0x0F, groups[some] >> 4)):
            pairs[some, :, half] = torch.ldexp(table[bits.int()], scale)
