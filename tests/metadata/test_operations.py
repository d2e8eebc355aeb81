"""Rules for parameters that are made of several tensors, as far as their text alone tells."""

from __future__ import annotations

import json

import pytest

from checkpoints import metadata_document
from wmtp.errors import MetadataError
from wmtp.metadata.file import dump_metadata, parse_metadata
from wmtp.metadata.operations import operations_in
from wmtp.metadata.schema import StateDictMapping

PLACE = "loading_strategy.state_dict_mapping.tensors"
LEAF = {"stack": 0, "of": ["a"]}
KINDS = "an object with one of stack, concatenate, split, rearrange, dequantise"


def parsed(tensors):
    document = metadata_document({"state_dict_mapping": {"tensors": tensors}})
    return parse_metadata(json.dumps(document).encode(), where="m.json")


def nested(depth):
    rule = "a"
    for _ in range(depth):
        rule = {"stack": 0, "of": [rule]}
    return rule


@pytest.mark.parametrize(
    ("rule", "fault"),
    [
        (5, f" is 5: expected {KINDS}"),
        ("a", f" is 'a': expected {KINDS}"),
        ({"stak": 0, "of": "a"}, f': expected {KINDS}'),
        ({"stack": 0}, ".of is missing"),
        ({"stack": 0, "of": "a"}, ".of is one part: name in each the number that runs over it, or make it a list"),
        ({"stack": 0, "each": "e", "of": ["a.{e}"]}, ".of is a list, and each goes with one part"),
        ({"stack": True, "of": ["a"]}, ".stack is true: input should be a valid integer"),
        ({"stack": -1, "of": ["a"]}, ".stack is -1: input should be greater than or equal to 0"),
        ({"stack": 0, "of": []}, ".of is []: list should have at least 1 item"),
        ({"stack": 0, "of": ["a", 7]}, f".of.1 is 7: expected a tensor's name, or {KINDS}"),
        ({"stack": 0, "concatenate": 1, "of": ["a"]}, ".concatenate is not a known field"),
        ({"stack": 0, "each": "e", "of": "a.{e}", "eech": 1}, ".eech is not a known field (did you mean 'each'?)"),
        ({"stack": 0, "each": "E", "of": "a"}, ".each is 'E': string should match pattern"),
        ({"split": 0, "sizes": [1, 2], "of": "a"}, ".take is missing"),
        ({"split": 0, "sizes": [1, 2], "take": 2, "of": "a"}, ".take is 2, and sizes has 2 pieces, counted from 0"),
        ({"split": 0, "sizes": [1, 0], "take": 0, "of": "a"}, ".sizes.1 is 0: input should be greater than or equal"),
        ({"rearrange": "a b", "of": "x"}, ".rearrange is 'a b', which is not axes before and after an arrow"),
        ({"rearrange": "a", "sizes": {"q": 3}, "of": "x"}, ".rearrange is 'a', which is not axes before and after"),
        ({"rearrange": "a -> a", "sizes": {"q": 3}, "of": "x"}, ".sizes has 'q', which are no axes"),
        ({"dequantise": "gptq", "of": "a", "scales": "b"}, ".dequantise is 'gptq'"),
        ({"dequantise": "mxfp4", "of": "a"}, ".scales is missing"),
        ({"dequantise": "fp8_block", "of": "a", "scales": "b"}, ".block is for fp8_block, which needs it"),
        ({"dequantise": "mxfp4", "block": [1, 2], "of": "a", "scales": "b"}, ".block is for fp8_block, which needs it"),
        ({"stack": 0, "each": "e", "of": "a.{x}"}, " has 'a.{x}', where {x} stands neither in the parameter's name"),
        ({"stack": 0, "each": "e", "of": "a"}, " has 'a' without {e}: one tensor would be used for every number"),
        ({"stack": 0, "of": ["a{E}"]}, " has a tensor name that is 'a{E}', where a brace does not belong to a place"),
        ({"stack": 0, "of": [""]}, " has a tensor name that is empty or longer than 512 bytes"),
        (nested(9), " has operations within each other more than 8 deep"),
        (
            {"stack": 0, "of": [{"stack": 0, "of": [{"split": 0, "sizes": [1, 2], "take": 9, "of": "a"}]}]},
            ".of.0.of.0.take is 9, and sizes has 2 pieces",
        ),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_rule_is_told_with_its_place_as_it_was_written(rule, fault):
    with pytest.raises(MetadataError) as refused:
        parsed({"w": rule})
    assert f"m.json: {PLACE}.w" in str(refused.value)
    assert fault in str(refused.value)


@pytest.mark.parametrize(
    ("target", "rule", "fault"),
    [
        ("w.{i}", LEAF, "has 'a' without {i}: one tensor would be used for every number"),
        ("w.{i}", {"stack": 0, "each": "i", "of": "a.{i}"}, "has each 'i', which stands for a number already"),
        ("w{", LEAF, "has a name that is 'w{', where a brace does not belong to a place such as {i}"),
        ("w.{i}{j}", LEAF, "where a place for a number has a digit or another place beside it"),
        ("w.{i}0", LEAF, "where a place for a number has a digit or another place beside it"),
        ("x" * 600, LEAF, "has a name that is empty or longer than 512 bytes"),
    ],
)
def test_what_is_wrong_with_a_parameters_name_is_told(target, rule, fault):
    with pytest.raises(MetadataError) as refused:
        parsed({target: rule})
    assert fault in str(refused.value)


def test_operations_and_rules_are_bounded_in_number():
    with pytest.raises(MetadataError, match="has 5,005 operations, at most 4,096 are allowed"):
        parsed({f"w{n}": {"stack": 0, "of": [LEAF] * 1000} for n in range(5)})
    with pytest.raises(MetadataError, match="at most 256 items"):
        parsed({f"w{n}": LEAF for n in range(257)})


def test_rules_are_written_back_as_they_were_read():
    inner = {"dequantise": "fp8_block", "block": [2, 2], "of": "l.{i}.{e}.a", "scales": "l.{i}.{e}.b", "dtype": "F32"}
    rules = {
        "l.{i}.w": {"rearrange": "(a b) c -> (b a) c", "sizes": {"a": 2}, "of": {"stack": 0, "each": "e", "of": inner}},
        "x": {"split": 1, "sizes": [1, 2], "take": 1, "of": {"concatenate": 0, "of": ["p", "q"]}},
    }
    written = json.loads(dump_metadata(parsed(rules)))["loading_strategy"]["state_dict_mapping"]["tensors"]
    assert parsed(written) == parsed(rules)
    assert list(written["l.{i}.w"]) == ["rearrange", "sizes", "of"]


def test_a_rule_is_walked_to_its_last_operation():
    mapping = StateDictMapping.model_validate({"tensors": {"w": nested(5)}})
    assert len(list(operations_in(mapping.tensors["w"]))) == 5
