"""Values in fewer bits against a loop over them, and against transformers where it is right."""

from __future__ import annotations

import pytest
import torch
from transformers.integrations.finegrained_fp8 import Fp8Dequantize
from transformers.integrations.mxfp4 import convert_moe_packed_tensors

from wmtp.checkpoint.tensors import TensorInfo
from wmtp.load_plan.conversion import dequantise
from wmtp.load_plan.conversion.dequantise import dequantised
from wmtp.load_plan.conversion.nodes import Dequantised


def node(kind, shape, block=(), dtype="BF16"):
    part = TensorInfo("a", "U8", (), "f", 0, 0)
    return Dequantised(kind, block, part, part, tuple(shape), dtype)


def eighths(*shape):
    """Every bit pattern that is a number."""
    values = torch.randint(0, 256, shape, dtype=torch.uint8)
    values[(values & 0x7F) == 0x7F] = 0  # NaN
    return values.view(torch.float8_e4m3fn)


def by_loop(values, scales, block, dtype):
    result = torch.empty(values.shape, dtype=dtype)
    for row in range(values.shape[0]):
        for column in range(values.shape[1]):
            scale = scales[row // block[0], column // block[1]].float()
            result[row, column] = (values[row, column].float() * scale).to(dtype)
    return result


@pytest.mark.parametrize(("rows", "columns"), [(16, 24), (18, 20), (5, 3), (1, 33)])
@pytest.mark.parametrize("scale_dtype", [torch.float32, torch.bfloat16, torch.float8_e8m0fnu])
def test_fp8_is_times_the_scale_of_its_block_also_where_the_edge_cuts_it(rows, columns, scale_dtype, monkeypatch):
    monkeypatch.setattr(dequantise, "_VALUES_AT_ONCE", 100)  # several pieces
    values, block = eighths(rows, columns), (8, 8)
    scales = (torch.rand(-(-rows // 8), -(-columns // 8)) + 0.1).to(scale_dtype)
    found = dequantised(node("fp8_block", values.shape, block), values, scales)
    assert torch.equal(found, by_loop(values, scales, block, torch.bfloat16))


@pytest.mark.parametrize("shape", [(32, 48), (3, 32, 48)])
def test_fp8_is_what_transformers_dequantises_where_blocks_are_whole(shape):
    values, scales = eighths(*shape), torch.rand(*shape[:-2], 2, 3) + 0.1
    expected = Fp8Dequantize(None)._dequantize_one(values, scales, output_dtype=torch.bfloat16)
    assert torch.equal(dequantised(node("fp8_block", shape, (16, 16)), values, scales), expected)


def test_a_block_larger_than_the_matrix_takes_no_more_memory_than_it():
    values, scales = eighths(3, 5), torch.tensor([[0.5]])
    found = dequantised(node("fp8_block", (3, 5), (1 << 40, 1 << 40), "F32"), values, scales)
    assert torch.equal(found, values.float() * 0.5)


@pytest.mark.parametrize("scale_dtype", [torch.uint8, torch.float8_e8m0fnu])
def test_mxfp4_is_what_transformers_makes_of_blocks_and_scales(scale_dtype, monkeypatch):
    monkeypatch.setattr(dequantise, "_VALUES_AT_ONCE", 96)
    blocks = torch.randint(0, 256, (2, 4, 3, 16), dtype=torch.uint8)
    scales = torch.randint(100, 150, (2, 4, 3), dtype=torch.uint8)
    expected = convert_moe_packed_tensors(blocks, scales).transpose(1, 2)  # gpt-oss has rows and columns turned round
    found = dequantised(node("mxfp4", (2, 4, 96)), blocks, scales.view(scale_dtype))
    assert torch.equal(found, expected)


def test_the_lower_four_bits_of_mxfp4_come_first():
    blocks, scales = torch.full((1, 1, 16), 0x4A, dtype=torch.uint8), torch.tensor([[128]], dtype=torch.uint8)
    found = dequantised(node("mxfp4", (1, 32), dtype="F32"), blocks, scales)
    assert found[0, :4].tolist() == [-2.0, 4.0, -2.0, 4.0]
