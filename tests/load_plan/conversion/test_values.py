"""Values of made parameters against torch's own operations, and stored tensors made of them again."""

from __future__ import annotations

import math
from itertools import permutations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from wmtp.checkpoint.tensors import TensorInfo
from wmtp.errors import CheckpointError
from wmtp.load_plan.conversion.inverse import stored_again
from wmtp.load_plan.conversion.nodes import Made
from wmtp.load_plan.conversion.resolve import made_of
from wmtp.load_plan.conversion.values import Assembly, evaluate
from wmtp.metadata.schema import StateDictMapping

DTYPES = {torch.float32: "F32", torch.bfloat16: "BF16", torch.int64: "I64", torch.float8_e4m3fn: "F8_E4M3"}
DTYPES |= {torch.uint8: "U8", torch.float8_e8m0fnu: "F8_E8M0"}


def infos(stored):
    return {
        name: TensorInfo(name, DTYPES[value.dtype], tuple(value.shape), "f", 0, value.nbytes)
        for name, value in stored.items()
    }


def resolve(rules, stored) -> dict[str, Made]:
    return made_of(StateDictMapping.model_validate({"tensors": rules}).tensors, infos(stored), where="here")


def assembled(made: Made, stored, dtype=None, order=None) -> torch.Tensor:
    """What arrives tensor by tensor, in any order."""
    assembly = Assembly(made, dtype or made.dtype)
    tensors = [made.tensors[position] for position in order or range(len(made.tensors))]
    whole = [assembly.deliver(tensor, stored[tensor.name]) for tensor in tensors]
    assert all(value is None for value in whole[:-1])
    return whole[-1]


def numbered(*shape, start=0):
    return torch.arange(start, start + math.prod(shape), dtype=torch.float32).view(shape)


@st.composite
def stored_and_rules(draw):
    """A few tensors, and a rule that joins them somehow."""
    sizes = draw(st.lists(st.integers(1, 3), min_size=1, max_size=3))
    dim, count = draw(st.integers(0, len(sizes))), draw(st.integers(1, 4))
    stored = {f"e.{n}": numbered(*sizes, start=100 * n) for n in range(count)}
    rule = {"stack": dim, "each": "e", "of": "e.{e}"}
    expected = torch.stack(list(stored.values()), dim)
    if draw(st.booleans()):
        dim = min(dim, len(sizes) - 1)
        rule, expected = {"concatenate": dim, "each": "e", "of": "e.{e}"}, torch.cat(list(stored.values()), dim)
    order = draw(st.permutations(range(expected.dim())))
    axes = [f"a{n}" for n in range(expected.dim())]
    text = f"{' '.join(axes)} -> {' '.join(axes[n] for n in order)}"
    rule, expected = {"rearrange": text, "of": rule}, expected.permute(order)
    length = expected.shape[0]
    if length == 1:
        return stored, {"w": rule}, {"w": expected}
    first = draw(st.integers(1, length - 1))
    cut = {"split": 0, "sizes": [first, length - first], "of": rule}
    pieces = {"x": expected[:first], "y": expected[first:]}
    return stored, {name: {**cut, "take": take} for take, name in enumerate(pieces)}, pieces


@given(stored_and_rules())
def test_what_is_made_is_what_torch_makes_and_becomes_what_was_stored_again(case):
    stored, rules, expected = case
    made = resolve(rules, stored)
    values = {name: assembled(each, stored) for name, each in made.items()}
    for name, value in expected.items():
        assert made[name].shape == tuple(value.shape)
        assert torch.equal(values[name], value)
        assert torch.equal(evaluate(made[name].node, stored), value)
    again = stored_again(made, values)
    assert again.keys() == stored.keys()
    assert all(torch.equal(again[name], value) for name, value in stored.items())


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_tensors_may_arrive_in_any_order(order):
    stored = {f"e.{n}": numbered(2, 3, start=10 * n) for n in range(3)}
    made = resolve({"w": {"concatenate": 1, "each": "e", "of": "e.{e}"}}, stored)["w"]
    assert torch.equal(assembled(made, stored, order=order), torch.cat(list(stored.values()), 1))


def test_axes_are_divided_and_joined_as_torch_does_it():
    stored = {"a": numbered(12, 5)}
    text, sizes = "(h d two) x -> (h two d) x", {"h": 3, "two": 2}
    made = resolve({"w": {"rearrange": text, "sizes": sizes, "of": "a"}}, stored)["w"]
    expected = stored["a"].view(3, 2, 2, 5).transpose(1, 2).reshape(12, 5)
    assert torch.equal(assembled(made, stored), expected)
    assert torch.equal(stored_again({"w": made}, {"w": expected})["a"], stored["a"])


def test_made_values_are_cast_when_another_dtype_is_asked_for():
    stored = {f"e.{n}": numbered(2, 2, start=n).bfloat16() for n in range(2)}
    made = resolve({"w": {"stack": 0, "each": "e", "of": "e.{e}"}}, stored)["w"]
    value = assembled(made, stored, "F32")
    assert value.dtype == torch.float32
    assert torch.equal(value, torch.stack(list(stored.values())).float())


def test_integers_and_empty_dimensions_are_joined_like_others():
    stored = {"a": torch.arange(4).view(2, 2), "b": torch.empty(0, 2, dtype=torch.int64)}
    made = resolve({"w": {"concatenate": 0, "of": ["a", "b"]}}, stored)["w"]
    assert torch.equal(assembled(made, stored), stored["a"])


def test_what_was_dequantised_is_not_stored_again():
    stored = {"a": torch.ones(2, 2).to(torch.float8_e4m3fn), "s": torch.ones(1, 1)}
    made = resolve({"w": {"dequantise": "fp8_block", "block": [2, 2], "of": "a", "scales": "s"}}, stored)["w"]
    with pytest.raises(CheckpointError, match=r"'a' was stored in fewer bits \(fp8_block\)"):
        stored_again({"w": made}, {"w": torch.ones(2, 2)})
