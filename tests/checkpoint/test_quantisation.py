"""What config.json may say of values in fewer bits, beside rules that undo it."""

import pytest

from wmtp.checkpoint.quantisation import without_quantisation
from wmtp.errors import MetadataError
from wmtp.metadata.schema import StateDictMapping

FP8 = {"quant_method": "fp8", "weight_block_size": [128, 128], "activation_scheme": "dynamic", "fmt": "e4m3"}


def config(block=(128, 128), **changes):
    rule = {"dequantise": "fp8_block", "block": list(block), "of": "a", "scales": "b"}
    rules = StateDictMapping.model_validate({"tensors": {"w": rule}}).tensors
    document = {"model_type": "llama", "quantization_config": FP8 | changes}
    return without_quantisation(document, rules, where="here")


def test_what_rules_undo_is_left_out_of_the_configuration():
    assert config() == {"model_type": "llama"}


def test_another_kind_or_block_than_that_of_the_rules_is_refused():
    with pytest.raises(MetadataError, match=r"has dequantise 'fp8_block', but .*quant_method 'mxfp4'"):
        config(quant_method="mxfp4")
    with pytest.raises(MetadataError, match=r"with block \[64, 128\], but .*weight_block_size \[128, 128\]"):
        config(block=(64, 128))


def test_keys_of_unknown_meaning_are_refused_and_other_kinds_are_left_to_be_refused():
    with pytest.raises(MetadataError, match=r"quantization_config: pack is not a known field"):
        config(pack="rows")
    assert "quantization_config" in config(quant_method="gptq")
