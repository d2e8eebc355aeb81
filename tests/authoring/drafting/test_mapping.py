"""Drafts of mappings, held to what `from_pretrained` loads of the same files."""

import json

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, FineGrainedFP8Config, Mxfp4Config

import wmtp
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
