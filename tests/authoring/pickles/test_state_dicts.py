"""Which entries of a pickle are the weights. What is tested here is in memory already; no pickle is opened."""

from collections import OrderedDict

import pytest
import torch

from wmtp.authoring.pickles.state_dicts import check_expected, find_state_dict
from wmtp.errors import CheckpointError, FormatError

ONE = torch.ones(1)


def test_tensors_at_the_top_are_the_weights_and_what_holds_none_is_named():
    found = find_state_dict(OrderedDict(a=ONE, step=3, config={"x": [1, (2,)]}, none=None), None)
    assert list(found.tensors) == ["a"]
    assert found.unwrapped is None
    assert found.dropped == ("'step' (int)", "'config' (dict)", "'none' (NoneType)")


@pytest.mark.parametrize("name", ["state_dict", "model", "module", "whatever"])
def test_the_one_mapping_of_tensors_is_unwrapped(name):
    found = find_state_dict({"epoch": 1, name: {"a": ONE}, "optimizer": {"state": {0: {"exp_avg": ONE}}}}, None)
    assert (list(found.tensors), found.unwrapped) == (["a"], name)
    assert found.dropped == (f"'epoch' (beside '{name}')", f"'optimizer' (beside '{name}')")


def test_of_two_mappings_none_is_guessed():
    with pytest.raises(CheckpointError) as refused:
        find_state_dict({"model": {"a": ONE}, "ema": {"a": ONE}, "epoch": 1}, None)
    assert refused.value.problem == (
        "holds no tensors itself, and 2 of its entries are mappings of tensors; its keys are: 'model', 'ema', 'epoch'"
    )
    assert refused.value.hint == "say which one to convert: key='model' (--key 'model')"


def test_a_key_that_names_no_mapping_of_tensors_is_refused_with_those_that_do():
    with pytest.raises(CheckpointError, match="has no mapping of tensors under 'modl'") as refused:
        find_state_dict({"model": {"a": ONE}, "epoch": 1}, "modl")
    assert refused.value.hint == "name one that is: 'model'"


def test_the_name_of_an_entry_that_is_no_unicode_is_reported_as_text():
    assert find_state_dict({"\ud800": {"a": ONE}}, None).unwrapped == r"\ud800"


def test_the_key_wins_over_tensors_at_the_top():
    found = find_state_dict({"rng_state": ONE, "model": {"a": ONE}}, "model")
    assert (list(found.tensors), found.dropped) == (["a"], ("'rng_state' (beside 'model')",))


@pytest.mark.parametrize("nest", [{"b": ONE}, [ONE], ((ONE,),), {"x": {"y": [{"z": ONE}]}}])
def test_no_tensor_is_dropped_because_it_is_nested(nest):
    with pytest.raises(CheckpointError, match="tensors stand beside entries that hold tensors themselves: 'nest'"):
        find_state_dict({"a": ONE, "nest": nest}, None)


def test_nesting_without_end_is_looked_through():
    circle: list = []
    circle.append(circle)
    deep: list = []
    for _ in range(100_000):
        deep = [deep]
    try:
        assert find_state_dict({"a": ONE, "circle": circle, "deep": deep}, None).dropped == (
            "'circle' (list)",
            "'deep' (list)",
        )
    finally:
        while deep:
            deep = deep[0]


@pytest.mark.parametrize("loaded", [[ONE], ONE, None, 3])
def test_what_is_no_mapping_is_refused_by_its_type(loaded):
    with pytest.raises(CheckpointError, match=f"holds one {type(loaded).__name__}, not a state dict"):
        find_state_dict(loaded, None)


@pytest.mark.parametrize(
    ("tensor", "said"),
    [
        (torch.eye(2).to_sparse(), "'t' is torch.sparse_coo of type Tensor on cpu"),
        (torch.empty(2, device="meta"), "'t' is torch.strided of type Tensor on meta"),
        (torch.ones(2, dtype=torch.complex64), "'t' has the dtype torch.complex64, which wmtp does not load"),
        (torch.ones(1).expand(10**11), "'t' of shape [100000000000] claims 400,000,000,000 bytes, its storage holds 4"),
        (torch.nn.Buffer(ONE).as_subclass(type("Odd", (torch.Tensor,), {})), "'t' is torch.strided of type Odd on cpu"),
    ],
)
def test_a_tensor_that_safetensors_cannot_hold_is_refused_by_name(tensor, said):
    with pytest.raises(FormatError) as refused:
        find_state_dict({"t": tensor}, None)
    assert refused.value.problem == said


@pytest.mark.parametrize("name", ["", "a\x1b[31m", "a" * 513, "\ud800", 3, ("a", ONE), b"a"])
def test_a_name_that_safetensors_cannot_hold_is_refused_without_printing_it(name):
    with pytest.raises(FormatError, match="which is empty, unprintable, no text, or longer than 512 bytes") as refused:
        find_state_dict({"a": ONE, name: ONE}, None)
    assert "\x1b" not in refused.value.problem


def test_a_key_that_would_take_for_ever_to_print_is_not_printed():
    pair: tuple = ()
    for _ in range(25):
        pair = (pair, pair)
    assert find_state_dict({"a": ONE, pair: 1}, None).dropped == ("a key of type tuple (int)",)


def test_a_parameter_loses_its_gradient_and_a_negated_view_gets_its_values():
    found = find_state_dict({"p": torch.nn.Parameter(ONE), "n": torch._neg_view(torch.ones(2))}, None)
    assert not found.tensors["p"].requires_grad
    assert not found.tensors["n"].is_neg()
    assert found.tensors["n"].tolist() == [-1, -1]


def test_a_shard_has_exactly_what_the_index_says():
    check_expected({"a": ONE, "b": ONE}, ["b", "a"])
    with pytest.raises(FormatError, match="differs from what the index says of it: lacks 'c'; has 'b'"):
        check_expected({"a": ONE, "b": ONE}, ["a", "c"])
