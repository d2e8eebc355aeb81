"""Drafts of mappings, held to what `from_pretrained` loads of the same files."""

import json

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, FineGrainedFP8Config, Mxfp4Config
from transformers.conversion_mapping import register_checkpoint_conversion_mapping
from transformers.core_model_loading import ConversionOps, WeightConverter

import wmtp
from wmtp.authoring.drafting.expressions import Stored
from wmtp.authoring.drafting.part import trace_part
from wmtp.authoring.init import init_metadata
from wmtp.authoring.upgrade import upgrade_metadata, write_upgrade
from wmtp.errors import PlanError

SIZES = {
    "vocab_size": 64,
    "hidden_size": 64,
    "intermediate_size": 64,
    "moe_intermediate_size": 32,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 64,
    "num_hidden_layers": 2,
    "pad_token_id": 0,
}
QWEN_MOE = {"num_experts": 4, "mlp_only_layers": [], "num_experts_per_tok": 2}


def written(directory, architecture, **changes):
    torch.manual_seed(0)
    config = AutoConfig.for_model(architecture, **{**SIZES, **changes})
    model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_()
    model.save_pretrained(directory)
    return type(model)


def rewritten(directory, change, **config):
    """Write the tensors again as `change(name, tensor)` gives them, and more into config.json."""
    tensors = load_file(directory / "model.safetensors")
    changed = {k: v.contiguous() for name, tensor in tensors.items() for k, v in change(name, tensor).items()}
    save_file(changed, directory / "model.safetensors", metadata={"format": "pt"})
    path = directory / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **config}))


def drafted(directory):
    draft = init_metadata(directory)
    return draft.metadata.loading_strategy.state_dict_mapping.model_dump(exclude_defaults=True), draft.notes


def assert_equal_to_transformers(directory, model_class, **options):
    found = wmtp.load_model(directory).state_dict()
    expected = model_class.from_pretrained(directory, dtype=torch.bfloat16, **options).state_dict()
    assert found.keys() == expected.keys()
    assert [name for name in found if not torch.equal(found[name], expected[name])] == []


def test_experts_of_one_tensor_each_are_stacked_whatever_the_names_around_them(tmp_path):
    model_class = written(tmp_path, "mixtral", num_local_experts=4)
    mapping, _ = drafted(tmp_path)
    assert mapping["key_transforms"] == {r"\.block_sparse_moe\.": ".mlp."}
    assert mapping["tensors"]["model.layers.{i}.mlp.experts.down_proj"] == {
        "stack": 0,
        "each": "e",
        "of": "model.layers.{i}.mlp.experts.{e}.w2.weight",
    }
    assert_equal_to_transformers(tmp_path, model_class)


def fp8(name, tensor):
    if "_proj" not in name:
        return {name: tensor}
    scales = torch.rand(-(-len(tensor) // 32), -(-tensor.shape[1] // 32)) + 0.1
    return {name: tensor.to(torch.float8_e4m3fn), f"{name}_scale_inv": scales}


def test_fp8_by_block_is_dequantised_as_transformers_does_it(tmp_path):
    model_class = written(tmp_path, "qwen3_moe", **QWEN_MOE)
    quantised = {"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [32, 32]}
    rewritten(tmp_path, fp8, quantization_config=quantised)
    mapping, _ = drafted(tmp_path)
    name = "model.layers.{i}.self_attn.q_proj.weight"
    assert mapping["tensors"][name] == {
        "dequantise": "fp8_block",
        "of": name,
        "scales": f"{name}_scale_inv",
        "block": [32, 32],
    }
    assert_equal_to_transformers(
        tmp_path, model_class, quantization_config=FineGrainedFP8Config(dequantize=True, weight_block_size=(32, 32))
    )


def mxfp4(name, tensor):
    if not name.endswith(("gate_up_proj", "down_proj")):
        return {name: tensor}
    experts, columns, rows = tensor.shape
    shape = (experts, rows, columns // 32)
    blocks = torch.randint(0, 256, (*shape, 16), dtype=torch.uint8)
    return {f"{name}_blocks": blocks, f"{name}_scales": torch.randint(120, 130, shape, dtype=torch.uint8)}


def test_mxfp4_is_dequantised_and_turned_as_transformers_does_it(tmp_path):
    model_class = written(tmp_path, "gpt_oss", num_local_experts=4)
    rewritten(tmp_path, mxfp4, quantization_config={"quant_method": "mxfp4", "modules_to_not_convert": ["lm_head"]})
    mapping, _ = drafted(tmp_path)
    assert mapping["tensors"]["model.layers.{i}.mlp.experts.down_proj"]["rearrange"] == "a b c -> a c b"
    assert_equal_to_transformers(tmp_path, model_class, quantization_config=Mxfp4Config(dequantize=True))
    assert "quantization_config" not in wmtp.load_model(tmp_path).config.to_dict()  # its values are plain now


def test_prediction_heads_that_the_class_drops_are_named_as_that(tmp_path):
    written(tmp_path, "qwen3_moe", **QWEN_MOE)
    extra = {"mtp.fc.weight": torch.zeros(64, 128), "mtp.layers.0.mlp.gate.weight": torch.zeros(4, 64)}
    rewritten(tmp_path, lambda name, tensor: {name: tensor, **extra})
    mapping, notes = drafted(tmp_path)
    assert mapping["allow_unexpected"] == ["mtp.*"]
    assert any("mtp.* (2 tensors) are prediction heads, which this class drops" in note for note in notes)
    wmtp.load_model(tmp_path)


def test_layers_behind_the_last_are_prediction_heads_and_no_glob_fits_a_layer_that_is_used(tmp_path):
    written(tmp_path, "llama")
    behind = {f"model.layers.2.{part}.weight": torch.zeros(64) for part in ("enorm", "input_layernorm")}
    rewritten(tmp_path, lambda name, tensor: {name: tensor, **behind})
    assert drafted(tmp_path)[0] == {"allow_unexpected": ["model.layers.2.*"]}


def with_experts_behind(directory):
    """A model of two layers, and a third one with experts, as files have it that hold native heads."""
    model_class = written(directory, "qwen3_moe", **QWEN_MOE)
    tensors = load_file(directory / "model.safetensors")
    behind = {n.replace("layers.1.", "layers.2."): t.clone() for n, t in tensors.items() if "layers.1." in n}
    behind["model.layers.2.eh_proj.weight"] = torch.zeros(64, 128)
    rewritten(directory, lambda name, tensor: {name: tensor, **behind})
    return model_class, behind


def test_one_rule_for_all_layers_stays_where_it_fits_those_of_dropped_heads_too(tmp_path):
    model_class, behind = with_experts_behind(tmp_path)
    mapping, notes = drafted(tmp_path)
    assert mapping["allow_unexpected"] == ["model.layers.2.*"]
    assert list(mapping["tensors"]) == [
        f"model.layers.{{i}}.mlp.experts.{each}" for each in ("down_proj", "gate_up_proj")
    ]
    assert any(f"({len(behind)} tensors) are prediction heads, which this class drops" in note for note in notes)
    assert_equal_to_transformers(tmp_path, model_class)
    assert sorted(wmtp.plan_load(tmp_path).left_unused) == sorted(behind)


def test_a_layer_behind_the_last_that_is_like_the_others_is_not_left_unused(tmp_path):
    written(tmp_path, "llama", num_hidden_layers=3)
    rewritten(tmp_path, lambda name, tensor: {name: tensor}, num_hidden_layers=2)
    mapping, notes = drafted(tmp_path)
    assert mapping == {}
    (note,) = [note for note in notes if "layers" in note]
    assert note.startswith("state_dict_mapping: empty, and the checkpoint does not load")
    assert note.endswith("in config.json num_hidden_layers is 2, but the tensors are of 3 layers")


def test_what_a_rule_makes_for_no_parameter_is_left_only_where_all_of_it_may_be(tmp_path):
    with_experts_behind(tmp_path)
    drafted(tmp_path)
    path = tmp_path / "metadata.json"
    path.write_text(path.read_text().replace("model.layers.2.*", "model.layers.2.*[!2].down_proj.weight"))
    with pytest.raises(PlanError, match=r"no parameter model\.layers\.2\.mlp\.experts\.down_proj, which the rule for"):
        wmtp.plan_load(tmp_path)


def test_a_text_model_loads_from_the_files_of_one_that_sees(tmp_path):
    text = {**SIZES, "layer_types": ["full_attention"] * 2, "model_type": "qwen3_5_text"}
    vision = {"depth": 1, "hidden_size": 32, "intermediate_size": 32, "num_heads": 2, "out_hidden_size": 64}
    config = transformers.Qwen3_5Config(text_config=text, vision_config=vision)
    transformers.Qwen3_5ForConditionalGeneration(config).bfloat16().save_pretrained(tmp_path)
    rewritten(tmp_path, lambda name, tensor: {name: tensor}, architectures=["Qwen3_5ForCausalLM"])
    mapping, notes = drafted(tmp_path)
    assert mapping == {"key_transforms": {r"\.language_model\.": "."}, "allow_unexpected": ["model.visual.*"]}
    assert any("are parts of a larger model, which this class does not build" in note for note in notes)
    assert_equal_to_transformers(tmp_path, transformers.Qwen3_5ForCausalLM)


def test_the_vision_model_of_a_larger_one_is_not_taken_for_its_text_model(tmp_path):
    text = {**SIZES, "num_local_experts": 2, "layer_types": ["full_attention"] * 2, "intermediate_size_mlp": 64}
    vision = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 256}
    sizes = {"image_size": 16, "patch_size": 8, "projector_input_dim": 64, "projector_output_dim": 64}
    config = transformers.Llama4Config(text_config=text, vision_config={**vision, **sizes, "vision_output_dim": 64})
    transformers.Llama4ForConditionalGeneration(config).bfloat16().save_pretrained(tmp_path)
    rewritten(tmp_path, lambda name, tensor: {name: tensor}, architectures=["Llama4ForCausalLM"])
    unused = ["multi_modal_projector.*", "vision_model.*"]
    assert drafted(tmp_path)[0] == {"remove_prefix": "language_model.", "allow_unexpected": unused}
    whole = transformers.Llama4ForConditionalGeneration.from_pretrained(tmp_path, dtype=torch.bfloat16).language_model
    found, expected = wmtp.load_model(tmp_path).state_dict(), whole.state_dict()
    assert [name for name in expected if not torch.equal(found[name], expected[name])] == []


def test_what_the_larger_model_would_make_otherwise_is_no_part_of_a_draft(tmp_path):
    model = written(tmp_path, "mixtral", num_local_experts=2).from_pretrained(tmp_path)
    stored = {n: Stored(n, tuple(t.shape)) for n, t in load_file(tmp_path / "model.safetensors").items()}
    other = AutoModelForCausalLM.from_config(AutoConfig.for_model("llama", **SIZES))
    trace = trace_part(model, other, stored)
    assert "has no one part that is MixtralForCausalLM or its body" in trace.untraceable[0]
    assert "model.layers.0.mlp.experts.down_proj is made otherwise" in " ".join(trace.untraceable)
    assert "model.layers.0.self_attn.q_proj.weight" in trace.made
    assert "model.layers.0.mlp.experts.down_proj" not in trace.made


class Doubled(ConversionOps):
    """What no operation of metadata.json says."""

    def convert(self, input_dict, *, target_patterns, **_):
        return {target_patterns[0]: next(iter(input_dict.values()))[0] * 2}


def test_values_that_transformers_changes_are_not_loaded_by_their_names_alone(tmp_path):
    written(tmp_path, "olmo")
    converter = WeightConverter("self_attn.o_proj.weight", "self_attn.o_proj.weight", operations=[Doubled()])
    register_checkpoint_conversion_mapping("OlmoForCausalLM", [converter])
    try:
        with pytest.raises(PlanError, match="transformers does more with 2 of them than to take them as they are"):
            init_metadata(tmp_path)
    finally:
        register_checkpoint_conversion_mapping("OlmoForCausalLM", [], overwrite=True)
    assert not (tmp_path / "metadata.json").exists()


def test_what_is_left_over_and_not_known_is_not_left_unused(tmp_path):
    written(tmp_path, "llama")
    rewritten(tmp_path, lambda name, tensor: {name: tensor, "model.layers.0.gate": torch.zeros(1)})
    mapping, notes = drafted(tmp_path)
    assert mapping == {}
    assert any("the checkpoint does not load" in note for note in notes)


def test_a_refusal_names_the_command_that_drafts_what_is_lacking(tmp_path):
    model_class = written(tmp_path, "mixtral", num_local_experts=4)
    drafted(tmp_path)
    path = tmp_path / "metadata.json"
    document = json.loads(path.read_text())
    document["loading_strategy"]["state_dict_mapping"] = {}
    path.write_text(json.dumps(document))
    with pytest.raises(PlanError, match=f"'wmtp upgrade {tmp_path}' looks for a mapping"):
        wmtp.plan_load(tmp_path)
    write_upgrade(tmp_path, upgrade_metadata(tmp_path))
    assert upgrade_metadata(tmp_path) is None
    assert_equal_to_transformers(tmp_path, model_class)
