import json

import pytest

from wmtp.checkpoint.configuration import read_config
from wmtp.checkpoint.quantisation import Quantisation, check_rules, quantisation_of, without_quantisation
from wmtp.errors import MetadataError, TrustError
from wmtp.metadata.schema import StateDictMapping
from wmtp.storage.opening import open_store

FP8 = {"quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic", "weight_block_size": [128, 128]}


def test_the_two_kinds_that_load_are_read():
    assert quantisation_of({"quantization_config": FP8}) == Quantisation("fp8_block", (128, 128))
    assert quantisation_of({"quantization_config": {"quant_method": "mxfp4"}}) == Quantisation("mxfp4", None)
    assert without_quantisation({"a": 1, "quantization_config": FP8}) == {"a": 1}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"quant_method": "gptq", "bits": 4}, "quant_method is 'gptq' with 4 bits"),
        ({"quant_method": "awq"}, "quant_method is 'awq'"),
        ({"quant_method": ["fp8"]}, "quant_method is missing"),
        ({"activation_scheme": "static"}, "activation_scheme is 'static'"),
        ({"weight_block_size": None}, "weight_block_size is null"),
        ({"weight_block_size": [128, True]}, "weight_block_size is [128, true]"),
        ({"fmt": "e5m2"}, "fmt is 'e5m2'"),
        ({"backend": "own"}, "backend is 'own'"),
    ],
)
def test_any_other_is_refused_by_what_is_not_known(tmp_path, change, said):
    (tmp_path / "config.json").write_text(json.dumps({"quantization_config": {**FP8, **change}}))
    with pytest.raises(TrustError, match="a checkpoint may not set this") as caught:
        read_config(open_store(tmp_path))
    assert said in caught.value.hint
    assert quantisation_of({"quantization_config": {**FP8, **change}}) is None


def test_a_kind_that_loads_is_refused_within_a_part_of_the_configuration(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"text_config": {"quantization_config": FP8}}))
    with pytest.raises(TrustError, match=r"text_config\.quantization_config"):
        read_config(open_store(tmp_path))


def fp8_rules(block=(128, 128)):
    rule = {"dequantise": "fp8_block", "block": list(block), "of": "a", "scales": "b"}
    return StateDictMapping.model_validate({"tensors": {"w": rule}}).tensors


def test_rules_that_undo_another_kind_or_other_blocks_are_refused():
    check_rules({"quantization_config": FP8}, fp8_rules(), where="here")
    with pytest.raises(
        MetadataError, match=r"has dequantise 'fp8_block', but config.json has quantization_config of the kind 'mxfp4'"
    ):
        check_rules({"quantization_config": {"quant_method": "mxfp4"}}, fp8_rules(), where="here")
    with pytest.raises(MetadataError, match=r"with block \[64, 128\], but .*weight_block_size \[128, 128\]"):
        check_rules({"quantization_config": FP8}, fp8_rules(block=(64, 128)), where="here")
