import pytest

from wmtp.checkpoint.refused_keys import IN_CONFIG, IN_GENERATION, IN_TOKENIZER_SETTINGS, check_keys
from wmtp.errors import TrustError


def hint(rules=IN_CONFIG, **document):
    with pytest.raises(TrustError) as caught:
        check_keys("models/a/file.json", document, rules)
    assert caught.value.problem.startswith("models/a/file.json: ")
    return caught.value.hint


@pytest.mark.parametrize(
    ("value", "kind", "way"),
    [
        ({"quant_method": "gptq", "bits": 4}, "quant_method is 'gptq' with 4 bits", "take the checkpoint"),
        ({"quant_method": "awq", "w_bit": 4}, "quant_method is 'awq' with 4 bits", "take the checkpoint"),
        ({"load_in_8bit": True}, "quant_method is 'bitsandbytes' with 8 bits", "model.dequantize()"),
        ({"quant_method": "fp8"}, "quant_method is 'fp8'", "FineGrainedFP8Config(dequantize=True)"),
        ({"quant_method": "mxfp4"}, "quant_method is 'mxfp4'", "Mxfp4Config(dequantize=True)"),
        ({"quant_method": "compressed-tensors"}, "quant_method is 'compressed-tensors'", "run_compressed=False"),
        ({"quant_method": "\x1b[2J"}, "quant_method is '\\x1b[2J'", "take the checkpoint"),
        ({}, "quant_method is missing", "take the checkpoint"),
        ([1], "quant_method is missing", "take the checkpoint"),
    ],
)
def test_the_kind_of_quantisation_is_named_with_the_way_to_plain_weights(value, kind, way):
    said = hint(quantization_config=value)
    assert kind in said
    assert way in said
    assert "custom_module_file" not in said


def test_every_configuration_that_a_hint_names_is_one_of_transformers():
    import inspect

    import transformers

    for name in ("FineGrainedFP8Config", "Mxfp4Config"):
        assert "dequantize" in inspect.signature(getattr(transformers, name)).parameters
    assert "run_compressed" in inspect.signature(transformers.CompressedTensorsConfig).parameters
    assert callable(transformers.PreTrainedModel.dequantize)


def test_code_that_auto_map_names_is_told_with_the_lines_that_declare_it():
    said = hint(auto_map={"AutoConfig": "conf.XConfig", "AutoModelForCausalLM": "org/repo--parts.model.XForCausalLM"})
    assert "XConfig of conf.py, XForCausalLM of parts/model.py" in said
    assert '"model_class_name": "XForCausalLM", "custom_module_file": "parts/model.py"' in said
    assert "custom_module_file" in hint(auto_map="x")


def test_code_for_a_tokenizer_is_told_apart_from_files_that_it_names():
    said = hint(IN_TOKENIZER_SETTINGS, auto_map={"AutoTokenizer": ["tok.XTokenizer", None]})
    assert said.startswith("auto_map names XTokenizer of tok.py, and no code is run for a tokenizer")
    assert "tokenizer.json" in said
    assert hint(IN_TOKENIZER_SETTINGS, merges_file="x").startswith("remove merges_file from the file")


def test_of_several_keys_each_has_its_own_advice():
    said = hint(attn_implementation="x/y", trust_remote_code=True, __class__="z")
    assert "attn_implementation: remove it" in said
    assert "trust_remote_code: remove it from the file, or set it to false" in said
    assert "__class__: remove it" in said
    assert hint(IN_GENERATION, auto_map={}).startswith("remove auto_map")
