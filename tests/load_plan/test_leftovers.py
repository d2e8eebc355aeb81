import pytest

from wmtp.checkpoint.tensors import TensorInfo
from wmtp.load_plan.leftovers import explained, is_harmless, told_apart


def tensor(name, *shape):
    return TensorInfo(name, "F32", shape, "model.safetensors", 0, 0)


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("h.0.attn.bias", (1, 1, 64, 64)),
        ("transformer.h.3.attn.masked_bias", ()),
        ("gpt_neox.layers.1.attention.bias", (1, 1, 8, 8)),
        ("model.layers.0.self_attn.rotary_emb.inv_freq", (4,)),
        ("gpt_neox.layers.0.attention.rotary_emb.inv_freq", (4,)),
        ("bert.embeddings.position_ids", (1, 512)),
        ("transformer.h.0.attn.causal_mask", (1, 1, 8, 8)),
        ("lm_head.weight", (96, 32)),
        ("model.score.weight", (1, 32)),
        ("v_head.summary.bias", (1,)),
        ("cls.predictions.transform.dense.weight", (4, 4)),
    ],
)
def test_old_buffers_and_heads_of_other_tasks_are_harmless(name, shape):
    assert is_harmless(tensor(name, *shape))


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("h.0.attn.bias", (32,)),  # a bias, not a mask
        ("h.0.attn.masked_bias", (7,)),
        ("model.layers.2.mlp.up_proj.weight", (4, 4)),
        ("model.layers.0.mlp.score.weight", (4, 4)),  # a router, not a head
        ("lm_head.weight_scale", (96, 1)),
        ("lm_head.lora_A.weight", (2, 32)),
        ("score.parametrizations.weight.original0", (1, 1)),
        ("odd", ()),
    ],
)
def test_what_may_matter_is_never_harmless(name, shape):
    assert not is_harmless(tensor(name, *shape))


_ADAPTERS = (
    *("lora_A.weight", "lora_B.default.weight", "lora_embedding_A", "lora_embedding_B.default", "base_layer.weight"),
    *("lora_magnitude_vector.default.weight", "modules_to_save.default.weight", "ia3_l.default"),
)
_QUANTISED = (
    *("weight_scale", "weight_scale_inv", "input_scale", "k_scale", "weight.absmax", "weight.quant_map", "g_idx"),
    *("weight.nested_absmax", "weight.quant_state.bitsandbytes__nf4", "qweight", "qzeros", "scales", "weight_packed"),
    *("weight_shape", "weight_zero_point", "SCB", "down_proj_blocks", "down_proj_scales"),
)


@pytest.mark.parametrize(
    ("what", "remedy", "names"),
    [
        ("an adapter", "merge_and_unload", _ADAPTERS),
        ("quantised weights", "save them dequantised", _QUANTISED),
        ("a parametrisation", "remove_parametrizations", ["parametrizations.weight.original1"]),
        ("weight norm", "remove_weight_norm", ["weight_g", "weight_v", "w_norm", "weight_u"]),
        ("pruning", "prune.remove", ["weight_orig", "weight_mask", "bias_mask", "in_proj_weight_orig"]),
    ],
)
def test_what_changes_other_tensors_is_named_with_the_way_to_be_rid_of_it(what, remedy, names):
    for name in names:
        said = explained(told_apart([f"model.layers.0.q.{name}"], []))
        assert said.startswith(f"model.layers.0.q.{name} tells of {what}"), name
        assert remedy in said


@pytest.mark.parametrize("name", ["logit_scale", "clip.logit_scale", "transformer.blocks.0.w", "blocks.1.norm.weight"])
def test_ordinary_names_tell_of_nothing(name):
    assert told_apart([name], []) == {}


def test_a_name_that_goes_on_from_another_is_a_part_of_a_pair():
    (kind,) = told_apart(["h.0.w_direction"], {"h.0.w", "h.1.w"})
    assert "a pair" in kind.what
    assert told_apart(["h.0.w2"], {"h.0.w"}) == {}


def test_of_several_kinds_each_is_explained_and_its_tensors_counted():
    said = explained(told_apart(["a.lora_A.weight", "b.qweight", "a.lora_B.weight"], []))
    assert said.startswith("a.lora_A.weight and 1 more tell of an adapter: ")
    assert "; b.qweight tells of quantised weights" in said
