"""Rules that make parameters of several tensors: such as explode, collide, lie, or leave something out."""

from __future__ import annotations

from typing import Any

from hostile.bases import llama
from hostile.case import Change, refusals
from hostile.changes import config, mapping, tensors_named
from hostile.draft import INNER, WEIGHTS, WIDTH, Draft, Tensor, container, random_tensor
from hostile.good import good

refused = refusals("mapping")
M = "metadata.json"
PLACE = "state_dict_mapping.tensors"
UP = "model.layers.0.mlp.up_proj.weight"


def rules(**made: Any) -> Change:
    """Declare rules; `__` in a name stands for `.`."""
    return mapping(tensors={name.replace("__", "."): rule for name, rule in made.items()})


def for_up(rule: Any) -> Change:
    """Declare a rule for one parameter."""
    return mapping(tensors={UP: rule})


def nested(depth: int) -> Any:
    """Operations within each other."""
    rule: Any = UP
    for _ in range(depth):
        rule = {"stack": 0, "of": [rule]}
    return rule


def cut(take: int, *sizes: int, of: str = UP, dim: int = 0) -> dict[str, Any]:
    """A piece of a tensor."""
    return {"split": dim, "sizes": list(sizes), "take": take, "of": of}


def _empty_tensors(*names: str) -> Change:
    header = {name: {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for name in names}
    return lambda draft: draft.files.update({WEIGHTS: container(header)})


def _many(count: int, num_rules: int) -> Change:
    made = {f"w{n}": {"stack": 0, "each": "e", "of": "x.{e}"} for n in range(num_rules)}

    def change(draft: Draft) -> None:
        _empty_tensors(*(f"x.{n}" for n in range(count)))(draft)
        mapping(tensors=made)(draft)

    return change


def _fused(draft: Draft) -> None:
    """Queries, keys and values of each layer in one tensor."""
    for layer in range(2):
        start = f"model.layers.{layer}.self_attn"
        parts = [draft.tensors.pop(f"{start}.{part}_proj.weight") for part in "qkv"]
        data = b"".join(part.data for part in parts)
        draft.tensors[f"{start}.qkv.weight"] = Tensor("F32", (2 * WIDTH, WIDTH), data)


def _halved(draft: Draft) -> None:
    """A matrix in two files' worth of rows, as model parallelism leaves it."""
    whole = draft.tensors.pop(UP)
    half = len(whole.data) // 2
    for number, data in enumerate((whole.data[:half], whole.data[half:])):
        draft.tensors[f"part.{number}.up"] = Tensor("F32", (INNER // 2, WIDTH), data)


QKV = "model.layers.{i}.self_attn.qkv.weight"
QKV_RULES = {
    f"model.layers.{{i}}.self_attn.{part}_proj.weight": cut(n, WIDTH, WIDTH // 2, WIDTH // 2, of=QKV)
    for n, part in enumerate("qkv")
}
_NO_RULES = {
    "is a number": (5, "5"),
    "has no operation": ({"of": UP}, "stack, concatenate, split, rearrange, dequantise"),
    "has two operations": ({"stack": 0, "split": 0, "of": [UP]}, "split"),
    "is nested nine deep": (nested(9), "more than 8 deep"),
    "is nested fifty deep": (nested(25), "deep|levels"),
    "cuts into two thousand pieces": (cut(0, *[1] * 2000), "1024"),
    "cuts into nothing": (cut(0, 0, 16), "sizes.0"),
    "takes a piece that is not there": (cut(2, 8, 8), "counted from 0"),
    "takes a piece of a number beyond all": (cut(10**30, 8, 8), "take"),
    "has a size beyond all": (cut(0, 10**30, 16), "sizes.0"),
    "works on a dimension beyond all": ({"stack": 10**9, "of": [UP]}, "stack"),
    "abuses a place": ({"stack": 0, "of": [UP + "{__class__}"]}, "brace"),
    "has a format in its place": ({"stack": 0, "of": [UP + "{0.__class__}"]}, "brace"),
    "has two places beside each other": ({"stack": 0, "each": "e", "of": "x{e}{e}"}, "beside"),
    "has a place that nothing binds": ({"stack": 0, "of": ["x.{e}"]}, "neither"),
    "binds a number twice": ({"stack": 0, "each": "e", "of": {"stack": 0, "each": "e", "of": "x.{e}"}}, "already"),
    "names a tensor with an escape": ({"stack": 0, "of": ["\x1b[31m{"]}, "\\x1b"),
    "dequantises what nobody knows": ({"dequantise": "eval", "of": UP, "scales": UP}, "eval"),
}  # fmt: skip
_NO_TEXTS = {
    "is a program": "__import__('os').system('x') -> a",
    "is long": "a " * 300 + "-> a",
    "is nested": "((((a)))) -> a",
    "has letters of another alphabet": "\u0430 b -> b \u0430",
    "repeats": "a b -> b ...",
    "forgets": "a b -> a",
    "has a hundred axes": " ".join(f"a{n}" for n in range(100)) + " -> a0",
    "ends open": "(a b -> a b",
}

CASES = [
    *[
        refused(f"a rule that {what}", "MetadataError", (M, PLACE, found), for_up(rule))
        for what, (rule, found) in _NO_RULES.items()
    ],
    *[
        refused(
            f"a rearrangement that {what}",
            "MetadataError",
            (M, PLACE, "rearrange"),
            for_up({"rearrange": text, "of": UP}),
        )
        for what, text in _NO_TEXTS.items()
    ],
    refused(
        "a rearrangement whose sizes no tensor has",
        "PlanError",
        (M, PLACE, "do not divide"),
        for_up({"rearrange": "(a b) c -> (b a) c", "sizes": {"a": 1 << 40}, "of": UP}),
    ),
    refused(
        "a rearrangement of the product of sixteen huge sizes",
        "PlanError",
        (M, PLACE, "do not divide"),
        for_up(
            {
                "rearrange": f"({' '.join('abcdefghijklmno')}) x -> ({' '.join('abcdefghijklmno')}) x",
                "sizes": dict.fromkeys("abcdefghijklmno", 1 << 40),
                "of": UP,
            }
        ),
    ),
    refused(
        "5005 operations",
        "MetadataError",
        (M, PLACE, "5,005"),
        rules(**{f"w{n}": {"stack": 0, "of": [{"stack": 0, "of": ["a"]}] * 1000} for n in range(5)}),
    ),
    refused(
        "257 rules for parameters",
        "MetadataError",
        (M, PLACE, "256"),
        rules(**{f"w{n}": {"stack": 0, "of": ["a"]} for n in range(257)}),
    ),
    refused(
        "a rule that uses one tensor twice",
        "PlanError",
        (M, PLACE, UP, "used 2 times"),
        for_up({"concatenate": 0, "of": [UP, UP]}),
    ),
    refused(
        "two rules that use one tensor",
        "PlanError",
        (M, PLACE, UP, "used 2 times"),
        rules(a={"stack": 0, "of": [UP]}, b={"stack": 0, "of": [UP]}),
    ),
    refused("a rule that leaves a piece out", "PlanError", (M, PLACE, "left out", UP), for_up(cut(0, 8, 8))),
    refused("pieces that do not add up", "PlanError", (M, PLACE, "add up to 9", UP), for_up(cut(0, 8, 1))),
    refused(
        "pieces of sizes beside the header", "PlanError", (M, PLACE, "add up to", UP), for_up(cut(0, 1 << 40, 1 << 40))
    ),
    refused(
        "rules that use twenty thousand tensors two hundred times",
        "PlanError",
        (M, PLACE, "pieces"),
        _many(20_000, 200),
    ),
    refused(
        "a number of a part beyond all tensors",
        "PlanError",
        (M, PLACE, "more numbers than there are"),
        _empty_tensors(f"x.{10**100}"),
        rules(w={"stack": 0, "each": "e", "of": "x.{e}"}),
    ),
    refused(
        "names with braces in the headers",
        "PlanError",
        (M, PLACE, "x.{e}"),
        _empty_tensors("x.{}", "x.{e}", "x.00"),
        rules(w={"stack": 0, "each": "e", "of": "x.{e}"}),
    ),
    refused(
        "a rule for what is stored whole",
        "PlanError",
        (M, PLACE, UP, "stored"),
        for_up({"rearrange": "a b -> a b", "of": "model.layers.1.mlp.up_proj.weight"}),
    ),
    refused(
        "a rule for a parameter that the class does not have",
        "PlanError",
        ("unexpected", "nowhere", PLACE),
        mapping(tensors={"nowhere": {"rearrange": "a b -> a b", "of": UP}}, allow_missing=[UP], allow_unexpected=["*"]),
    ),
    refused(
        "a made parameter of another shape",
        "PlanError",
        ("wrong shape", UP),
        for_up({"rearrange": "a b -> b a", "of": UP}),
    ),
    refused(
        "scales without weights",
        "PlanError",
        (M, PLACE, "fp8_block", "F32"),
        for_up({"dequantise": "fp8_block", "block": [8, 8], "of": UP, "scales": "model.norm.weight"}),
    ),
    refused(
        "a quantisation that no rule undoes",
        "TrustError",
        ("config.json", "quantization_config", "fp8"),
        config(quantization_config={"quant_method": "fp8"}),
    ),
    refused(
        "a quantisation of another kind than its rule",
        "TrustError",
        ("config.json", "quantization_config", "gptq"),
        for_up({"dequantise": "fp8_block", "block": [8, 8], "of": UP, "scales": "s"}),
        config(quantization_config={"quant_method": "gptq", "bits": 4}),
    ),
    refused(
        "a quantisation with keys of its own",
        "TrustError",
        ("config.json", "quantization_config", "hook"),
        for_up({"dequantise": "fp8_block", "block": [8, 8], "of": UP, "scales": "s"}),
        config(quantization_config={"quant_method": "fp8", "hook": "x"}),
    ),
    good("a llama with its attention fused", llama, _fused, mapping(tensors=QKV_RULES)),
    good(
        "a llama with a matrix in two halves",
        llama,
        _halved,
        for_up({"concatenate": 0, "each": "e", "of": "part.{e}.up"}),
    ),
    good(
        "a rearrangement that changes nothing",
        llama,
        for_up({"rearrange": "(a b) c -> (a b) c", "sizes": {"b": 4}, "of": UP}),
    ),
    good(
        "a rule that makes nothing of nothing",
        llama,
        tensors_named({"extra": random_tensor("extra", (3,))}),
        mapping(allow_unexpected=["extra"], tensors={}),
    ),
]
