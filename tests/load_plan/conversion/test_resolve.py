"""Which tensors rules take, and what is said of rules that do not fit them."""

from __future__ import annotations

import math

import pytest

from wmtp.checkpoint.tensors import TensorInfo
from wmtp.errors import PlanError
from wmtp.load_plan.conversion.resolve import made_of
from wmtp.metadata.schema import StateDictMapping


def tensors(**shapes):
    """Tensors by name, `_` for a dot; of a pair the second is the dtype."""
    found = {}
    for name, given in shapes.items():
        shape, dtype = given if isinstance(given, tuple) else (given, "F32")
        found[name.replace("_", ".")] = tensor(name.replace("_", "."), shape, dtype)
    return found


def tensor(name, shape, dtype="F32"):
    return TensorInfo(name, dtype, tuple(shape), "model.safetensors", 0, 4 * math.prod(shape))


def experts(*numbers, names=("w1",), shape=(2, 3)):
    return {name: tensor(name, shape) for e in numbers for part in names for name in [f"experts.{e}.{part}"]}


def make(rules, found):
    return made_of(StateDictMapping.model_validate({"tensors": rules}).tensors, found, where="here")


def faults(rules, found):
    with pytest.raises(PlanError, match=r"^here/metadata\.json: .*state_dict_mapping\.tensors does not fit") as refused:
        make(rules, found)
    assert "wmtp inspect --tensors" in refused.value.hint
    return refused.value.faults


STACK = {"stack": 0, "each": "e", "of": "experts.{e}.w1"}


def cut(take, sizes=(1, 2), of="a"):
    return {"split": 0, "sizes": list(sizes), "take": take, "of": of}


def test_each_runs_over_numbers_and_not_over_their_digits():
    made = make({"w": STACK}, experts(*range(11)))
    assert made["w"].shape == (11, 2, 3)
    assert [each.name for each in made["w"].tensors] == [f"experts.{e}.w1" for e in range(11)]


def test_a_rule_holds_for_every_number_that_occurs():
    found = {f"l.{i}.{e}.w": tensor(f"l.{i}.{e}.w", (2,)) for i, count in ((3, 2), (10, 4)) for e in range(count)}
    made = make({"l.{i}.w": {"stack": 1, "each": "e", "of": "l.{i}.{e}.w"}}, found)
    assert {name: each.shape for name, each in made.items()} == {"l.3.w": (2, 2), "l.10.w": (2, 4)}


def test_a_number_that_stands_twice_in_a_name_is_one_number():
    found = {name: tensor(name, (1,)) for name in ("l.0.x.0", "l.1.x.1", "l.0.x.1")}
    assert list(make({"y.{i}": {"rearrange": "a -> a", "of": "l.{i}.x.{i}"}}, found)) == ["y.0", "y.1"]


def test_names_with_zeros_in_front_or_with_braces_are_other_names():
    found = experts(0) | {name: tensor(name, (2, 3)) for name in ("experts.00.w1", "experts.{}.w1", "experts.{e}.w1")}
    assert [each.name for each in make({"w": STACK}, found)["w"].tensors] == ["experts.0.w1"]


def test_numbers_that_are_missing_are_named():
    assert faults({"w": STACK}, experts(0, 2, names=("w1", "w2"))) == (
        "'w': there is no tensor 'experts.1.w1', by the name that the other rules give (e runs from 0 to 2)",
    )


def test_a_number_beyond_all_tensors_is_not_counted_to():
    (fault,) = faults({"w": STACK}, experts(10**300))
    assert "'e' would run from 0 to" in fault
    assert "more numbers than there are tensors" in fault
    assert len(fault) < 300


def test_a_fault_that_is_alike_in_many_layers_is_told_once_with_its_count():
    found = {f"h.{i}.qkv": tensor(f"h.{i}.qkv", [4]) for i in range(30)}
    told = faults({"q.{i}.w": cut(0, of="h.{i}.qkv")}, found)
    assert told == ("'q.0.w': sizes of split add up to 3, and h.0.qkv has 4 in dimension 0, and 29 more like it",)


@pytest.mark.parametrize(
    ("rules", "found", "fault"),
    [
        ({"w": STACK}, tensors(a=[1]), "the rule for 'w' finds none of its tensors, such as 'experts.{e}.w1'"),
        ({"x": cut(0), "y": cut(0), "z": cut(1)}, tensors(a=[3]), "piece 0 of 2 of 'a' is taken 2 times"),
        ({"x": cut(0)}, tensors(a=[3]), "piece 1 of 2 of 'a' is left out: no rule takes it"),
        (
            {"x": cut(0), "y": cut(1, (2, 1))},
            tensors(a=[3]),
            "tensor 'a' is used 2 times, and may be used once",
        ),
        ({"x": cut(0)}, tensors(a=[4]), "'x': sizes of split add up to 3, and a has 4 in dimension 0"),
        ({"x": cut(0)}, tensors(a=[]), "'x': split is 0, and a has 0 dimensions, counted from 0"),
        (
            {"x": {"stack": 2, "of": ["a", "b"]}},
            tensors(a=[3], b=[3]),
            "'x': stack is 2, and its parts have 1 dimensions",
        ),
        ({"x": {"stack": 0, "of": ["a", "b"]}}, tensors(a=[3], b=[4]), "'x': stack of a [3] and b [4]"),
        (
            {"x": {"concatenate": 0, "of": ["a", "b"]}},
            tensors(a=[3, 2], b=[1, 4]),
            "'x': concatenate of a [3, 2] and b [1, 4]",
        ),
        (
            {"x": {"concatenate": 0, "of": ["a", "b"]}},
            tensors(a=[3], b=([3], "BF16")),
            "'x': concatenate of a in F32 and b in BF16",
        ),
        (
            {"x": {"concatenate": 0, "of": ["a", "a"]}},
            tensors(a=[3]),
            "tensor 'a' is used 2 times, and may be used once",
        ),
        (
            {"x": {"rearrange": "(p q) -> (q p)", "sizes": {"p": 2}, "of": "a"}},
            tensors(a=[3]),
            "'x': rearrange of a has axes (p q) of 2, which do not divide a dimension of 3",
        ),
        (
            {"x": {"rearrange": "(p q) -> (q p)", "of": "a"}},
            tensors(a=[4]),
            "'x': rearrange of a needs the sizes of all axes but one of (p q)",
        ),
        (
            {"x": {"rearrange": "p q -> q p", "of": "a"}},
            tensors(a=[4]),
            "'x': rearrange of a has 2 dimensions before the arrow, the tensor has 1",
        ),
        (
            {"x": {"dequantise": "fp8_block", "block": [2, 2], "of": "a", "scales": "b"}},
            tensors(a=([3, 4], "F8_E4M3"), b=[1, 2]),
            "'x': a of [3, 4] needs scales of [2, 2], found [1, 2]",
        ),
        (
            {"x": {"dequantise": "fp8_block", "block": [2, 2], "of": "a", "scales": "b"}},
            tensors(a=[2, 2], b=[1, 1]),
            "'x': fp8_block is of F8_E4M3 with floating scales, found F32 with F32",
        ),
        (
            {"x": {"dequantise": "fp8_block", "block": [2, 2], "of": "a", "scales": "b"}},
            tensors(a=([2, 2], "F8_E4M3")),
            "'x': there is no tensor 'b', by the name that the other rules give",
        ),
        (
            {"x": {"dequantise": "mxfp4", "of": "a", "scales": "b"}},
            tensors(a=([4, 8], "U8"), b=([4], "U8")),
            "'x': mxfp4 is of [..., n, 16] with scales of [..., n], and a is [4, 8] with [4]",
        ),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named(rules, found, fault):
    assert fault in faults(rules, found)


def test_two_rules_for_one_parameter_are_refused():
    found = experts(0) | tensors(a=[1])
    rules = {"w.{e}": {"rearrange": "a b -> b a", "of": "experts.{e}.w1"}, "w.0": {"stack": 0, "of": ["a"]}}
    assert faults(rules, found) == (
        "'w.0' is made by 'w.{e}' and by 'w.0'",
    )  # fmt: skip


def test_rules_that_use_every_tensor_over_and_over_are_refused_by_counting():
    found = {f"e.{n}": tensor(f"e.{n}", (1,)) for n in range(10_000)}
    rules = {f"w{n}": {"stack": 0, "each": "e", "of": "e.{e}"} for n in range(100)}
    with pytest.raises(PlanError, match="makes more than 260,000 pieces of 10,000 tensors") as refused:
        make(rules, found)
    assert refused.value.hint == "write rules that use each tensor once"


def test_the_pieces_left_out_of_many_tensors_are_not_all_listed():
    found = {f"e.{n}": tensor(f"e.{n}", (1000,)) for n in range(3_000)}
    told = faults({"w.{n}": {"split": 0, "sizes": [1] * 1000, "take": 0, "of": "e.{n}"}}, found)
    assert len(told) < 60
