import os
import subprocess
import sys

import pytest

from wmtp.checkpoint.tensors import TensorInfo
from wmtp.load_plan.mapping import map_names
from wmtp.load_plan.suggestion import suggest_mapping
from wmtp.metadata.schema import StateDictMapping


def tensors(*names, shape=(2, 2)):
    return [TensorInfo(name, "F32", shape, "model.safetensors", 0, 0) for name in names]


def suggested(wanted, held, **options):
    """What is suggested, where loading would then find every wanted name."""
    infos = tensors(*held)

    def works(fields):
        mapped = map_names(StateDictMapping.model_validate(fields), held, where="x")
        return set(wanted) <= {name.name for name in mapped.values()}

    return suggest_mapping(wanted, infos, works=works, **options)


def test_a_prefix_that_would_mend_the_mapping_is_suggested():
    wanted = ["layers.0.w", "norm.w"]
    assert suggested(wanted, ["model.layers.0.w", "model.norm.w"]) == {"remove_prefix": "model."}
    assert suggested(["trunk." + name for name in wanted], wanted) == {"add_prefix": "trunk."}
    assert suggested(wanted, wanted) == {}
    assert suggested(wanted, ["m.layers.0.w", "norm.w"]) == {"remove_prefix": "m."}
    assert suggested([], []) == {}


def test_harmless_tensors_left_over_are_suggested_as_globs_over_layer_numbers():
    held = [f"h.{i}.{part}" for i in range(12) for part in ("w", "attn.bias")]
    wanted = [f"t.h.{i}.w" for i in range(12)]
    assert suggested(wanted, held) == {"add_prefix": "t.", "allow_unexpected": ["h.*.attn.bias"]}


@pytest.mark.parametrize("left", ["a.lora_A.weight", "w_scale", "a[0].*?", "model.extra", "w.absmax", "h.0.mlp.weight"])
def test_nothing_is_suggested_that_leaves_out_what_may_matter(left):
    assert suggested(["w"], ["w", left]) is None
    assert suggested(["w"], ["m.w", left]) is None


@pytest.mark.parametrize(
    ("wanted", "held"),
    [
        (["a.w", "b.w"], ["x.a.w", "y.b.w"]),  # two prefixes
        (["w"], ["am.w_", "xw"]),  # a prefix ends with a dot
        (["a.w", "b.w"], ["m.a.w"]),  # one is nowhere
        (["w"], ["w"] + [f"left{i}" for i in range(30)]),  # too much would be left over
        (["a.w", "w"], ["m.a.w", "m.w", "w"]),  # would collide
    ],
)
def test_nothing_is_suggested_where_no_single_prefix_does_it(wanted, held):
    assert suggested(wanted, held) is None


@pytest.mark.parametrize(
    "wrapped",
    [
        lambda name: f"_fsdp_wrapped_module.{name}".replace("layers.0.", "layers.0._fsdp_wrapped_module."),
        lambda name: f"_orig_mod.module.{name}".replace("mlp.", "_checkpoint_wrapped_module.mlp._orig_mod._orig_mod."),
        lambda name: f"module.module.{name}" if "norm" in name else f"module.{name}",
        lambda name: name.replace(".w", "._checkpoint_wrapped_module._fsdp_wrapped_module.w"),
    ],
)
def test_what_trainers_wrap_modules_in_is_taken_out_wherever_it_stands(wrapped):
    wanted = ["layers.0.mlp.w", "layers.1.mlp.w", "norm.w"]
    held = [wrapped(name) for name in wanted]
    fields = suggested(wanted, held)
    assert list(fields) == ["key_transforms"]
    assert [name.name for name in map_names(StateDictMapping(**fields), held, where="x").values()] == wanted


def test_wrappers_and_a_prefix_and_a_head_are_mended_together():
    held = ["_orig_mod.model.layers.0._orig_mod.w", "_orig_mod.model.norm.w", "_orig_mod.lm_head.weight"]
    fields = suggested(["layers.0.w", "norm.w"], held)
    assert fields["allow_unexpected"] == ["_orig_mod.lm_head.weight"]
    mapped = map_names(StateDictMapping(**fields), held, where="x")
    assert [name.name for name in mapped.values()] == ["layers.0.w", "norm.w", "lm_head.weight"]


def test_a_module_that_only_ends_like_a_wrapper_keeps_its_name():
    assert suggested(["a.my_orig_mod.w", "b.w"], ["a.my_orig_mod.w", "b._orig_mod.w"]) == {
        "key_transforms": {r"\.(?:_orig_mod\.)+": "."}
    }


def test_a_suggestion_that_loading_would_refuse_is_not_made():
    assert suggest_mapping(["w"], tensors("m.w"), works=lambda _: False) is None


def test_declared_rules_that_fit_are_kept_and_what_they_let_through_as_well():
    declared = StateDictMapping(key_transforms={"^net_": "net."}, allow_missing=["score"], allow_unexpected=["odd*"])
    fields = suggest_mapping(
        ["net.w", "score"],
        tensors("net_w", "lm_head.weight", "odd1"),
        works=lambda _: True,
        declared=declared,
        optional=["score"],
        unneeded=["odd1"],
    )
    assert fields == {
        "key_transforms": {"^net_": "net."},
        "allow_missing": ["score"],
        "allow_unexpected": ["odd*", "lm_head.weight"],
    }


def test_a_suggestion_for_a_hundred_thousand_names_comes_to_an_end():
    held = [f"model.layers.{i}.mlp.experts.{j}.w.weight" for i in range(100) for j in range(1000)]
    assert suggested([name.removeprefix("model.") for name in held], held) == {"remove_prefix": "model."}
    assert suggested([f"{name}.x" for name in held], held) is None


def test_a_renamed_part_is_suggested_where_its_ending_tells_which_it_is():
    held = ["gpt_neox.embed_in.weight", "embed_out.weight", "gpt_neox.layers.0.norm.bias"]
    wanted = ["gpt_neox.embed_in.weight", "lm_head.weight", "gpt_neox.layers.0.norm.bias"]
    assert suggested(wanted, held) == {"key_transforms": {r"^embed_out\.": "lm_head."}}


def test_renames_that_would_run_into_each_other_are_put_in_the_order_that_works():
    fields = suggested(["b.x.q", "c.y.r"], ["a.x.q", "b.y.r"])
    assert list(fields["key_transforms"].items()) == [(r"^b\.", "c."), (r"^a\.", "b.")]


def test_no_rename_is_suggested_where_two_would_do_or_of_what_belongs_to_an_adapter():
    assert suggested(["a.weight"], ["b.weight", "c.weight"]) is None
    assert suggested(["q.weight"], ["q.base_layer.weight"]) is None


_ANY_ORDER = """
from wmtp.checkpoint.tensors import TensorInfo
from wmtp.load_plan.suggestion import suggest_mapping

def suggested(wanted, held):
    tensors = [TensorInfo(name, "F32", (2, 2), "model.safetensors", 0, 0) for name in held]
    return suggest_mapping(wanted, tensors, works=lambda _: True)

parts = [f"{part}.{i}.{part}{i}" for part in ("left", "right", "up", "down") for i in range(5)]
print(suggested(parts, [name.replace(".", "_old.", 1) for name in parts]))
print(suggested(["lm_head.weight"], [f"{part}.lm_head.weight" for part in "hgfedcba"]))
"""


def test_a_suggestion_is_the_same_in_every_process():
    def said(seed):
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        return subprocess.run(
            [sys.executable, "-c", _ANY_ORDER], env=environment, capture_output=True, check=True
        ).stdout

    (text,) = {said(seed) for seed in ("0", "1", "2", "3")}
    assert text.count(b"_old") == 4
    assert b"'remove_prefix': 'a.'" in text
