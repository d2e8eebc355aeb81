import json

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText
from transformers.modeling_layers import MtpModel

import wmtp
from checkpoints import change_config, change_metadata, change_tensors
from native_files import write_native, write_vision_language
from native_models import DEEP_FAMILIES, EXPERT_FAMILIES, FAMILIES, oracle, told_of_modules
from tiny_models import tiny_mtp, tokens
from wmtp.authoring.init import init_metadata
from wmtp.checkpoint.native_heads import native_names
from wmtp.errors import CheckpointError
from wmtp.publishing.exports.native import prepare_native
from wmtp.publishing.publish import publish_directory


def export(source, destination, **options):
    return wmtp.export(source, destination, to="native", **options)


def raw(directory):
    return {name: (str(t.dtype), t.shape, t.view(torch.uint8)) for name, t in tensors(directory).items()}


def tensors(directory):
    return load_file(directory / "model.safetensors")


def assert_equal_bytes(one, other):
    assert one.keys() == other.keys()
    for name, (dtype, shape, values) in one.items():
        assert (dtype, shape) == other[name][:2]
        assert torch.equal(values, other[name][2])


@pytest.mark.parametrize("family", [*FAMILIES, *EXPERT_FAMILIES])
def test_what_was_not_trained_comes_back_byte_for_byte_under_its_own_names(tmp_path, family):
    write_native(tmp_path / "m", family)
    init_metadata(tmp_path / "m")
    made = export(tmp_path / "m", tmp_path / "made")
    assert_equal_bytes(raw(made), raw(tmp_path / "m"))
    assert (made / "config.json").read_bytes() == (tmp_path / "m" / "config.json").read_bytes()
    assert wmtp.load_metadata(made).mtp == wmtp.load_metadata(tmp_path / "m").mtp


@pytest.mark.parametrize("family", ["qwen3_5", "exaone4_5"])
def test_a_vision_language_checkpoint_comes_back_with_its_nesting_and_loses_heads_there(tmp_path, family):
    model = write_vision_language(tmp_path / "m", family)
    init_metadata(tmp_path / "m")
    made, plain = (export(tmp_path / "m", tmp_path / str(drop), drop_heads=drop) for drop in (False, True))
    assert_equal_bytes(raw(made), raw(tmp_path / "m"))
    assert (made / "config.json").read_bytes() == (tmp_path / "m" / "config.json").read_bytes()
    main = AutoModelForImageTextToText.from_pretrained(made)
    told_of_modules(main.config.text_config, list(model.conventions.block_like))
    expected, found = oracle(model).state_dict(), MtpModel.from_pretrained(main).state_dict()
    assert all(torch.equal(value, found[name]) for name, value in expected.items())
    before, after = (json.loads((each / "config.json").read_text()) for each in (made, plain))
    (count,) = [key for key in before["text_config"] if key in ("mtp_num_hidden_layers", "num_nextn_predict_layers")]
    assert (before["text_config"][count], after["text_config"][count]) == (1, 0)
    assert raw(plain).keys() == {name for name in raw(made) if not name.startswith("mtp.")}


def test_what_was_trained_is_written_under_the_source_s_names_in_the_dtype_asked_for(tmp_path):
    write_native(tmp_path / "m", "qwen3_5")
    init_metadata(tmp_path / "m")
    loaded = wmtp.load(tmp_path / "m", dtype="bfloat16")
    with torch.no_grad():
        loaded.model.heads["2"].eh_proj.weight.add_(1)
    with publish_directory(tmp_path / "made") as directory:
        prepare_native(loaded)(directory)
    before, after = tensors(tmp_path / "m"), tensors(tmp_path / "made")
    assert torch.equal(after["mtp.fc.weight"], before["mtp.fc.weight"].bfloat16() + 1)
    config = json.loads((tmp_path / "made" / "config.json").read_text())
    source = json.loads((tmp_path / "m" / "config.json").read_text())
    assert config["torch_dtype"] == "bfloat16"
    assert {**config, "dtype": 0, "torch_dtype": 0} == {**source, "dtype": 0, "torch_dtype": 0}
    assert list(config) == list(source)
    assert config["unknown_key"] == {"kept": [1]}


@pytest.mark.parametrize("family", [*FAMILIES, *EXPERT_FAMILIES])
def test_heads_are_dropped_with_their_declaration(tmp_path, family):
    model, ids = write_native(tmp_path / "m", family), tokens(1, 9)
    init_metadata(tmp_path / "m")
    made = export(tmp_path / "m", tmp_path / "made", drop_heads=True)
    metadata = wmtp.load_metadata(made)
    assert metadata.mtp is None
    assert metadata.loading_strategy.state_dict_mapping.key_transforms == {}
    config = json.loads((made / "config.json").read_text())
    assert [
        config[key] for key in config if "nextn" in key or key.endswith(("mtp_layers", "mtp_num_hidden_layers"))
    ] == [0]
    atol = 1e-5 if family in EXPERT_FAMILIES else 0
    with torch.no_grad():
        for plain in (wmtp.load_model(made), AutoModelForCausalLM.from_pretrained(made)):
            torch.testing.assert_close(plain(ids).logits, model.trunk(ids).logits, rtol=0, atol=atol)


_DEEP = [pytest.param(family, marks=pytest.mark.slow) for family in DEEP_FAMILIES]


# Some classes do not say that they have modules; told so, transformers finds these too.
_TOLD = ["qwen3_5", "qwen3_5_moe", "qwen3_next", "exaone_moe"]
_DEEP_TOLD = ["deepseek_v32_61", "glm_moe_dsa_78"]


@pytest.mark.parametrize("family", ["mellum", "inkling", *_DEEP, *_TOLD])
def test_transformers_reads_the_modules_of_an_export_as_the_same(tmp_path, family):
    model = write_native(tmp_path / "m", family)
    init_metadata(tmp_path / "m")
    made = export(tmp_path / "m", tmp_path / "made")
    main = AutoModelForCausalLM.from_pretrained(made)
    if family in (*_TOLD, *_DEEP_TOLD):
        assert not hasattr(main.config, "num_mtp_layers")
        told_of_modules(main.config, list(model.conventions.block_like))
    expected, found = oracle(model).state_dict(), MtpModel.from_pretrained(main).state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(value, expected[name]) for name, value in found.items())


@pytest.mark.parametrize(
    ("family", "error", "said"),
    [
        ("ernie", RuntimeError, "MtpModel weights are missing"),
        ("mimo", ValueError, "does not seem to register any known MTP layer patterns"),
        ("deepseek", RuntimeError, "MtpModel weights are missing"),  # it has 2 layers, and not 61
    ],
)
def test_transformers_has_no_way_to_the_modules_of_others(tmp_path, family, error, said):
    model = write_native(tmp_path / "m", family)
    main = AutoModelForCausalLM.from_pretrained(tmp_path / "m")
    told_of_modules(main.config, list(model.conventions.block_like))
    with pytest.raises(error, match=said):
        MtpModel.from_pretrained(main)


def test_a_module_that_is_run_again_is_counted_once(tmp_path):
    write_native(tmp_path / "m", "mellum")
    metadata = init_metadata(tmp_path / "m").metadata
    path = tmp_path / "m" / "metadata.json"
    document = json.loads(path.read_text())
    document["mtp"] |= {"recursion": 3, "n_future_tokens": 4}
    path.write_text(json.dumps(document))
    made = export(tmp_path / "m", tmp_path / "made")
    assert json.loads((made / "config.json").read_text())["num_nextn_predict_layers"] == 1
    assert wmtp.load_model(made).num_heads == 4
    assert metadata.num_heads == 2


def test_tensors_that_were_let_through_are_not_lost(tmp_path):
    write_native(tmp_path / "m", "mellum")
    init_metadata(tmp_path / "m")
    change_tensors(tmp_path / "m", lambda held: held.update({"vision.weight": torch.arange(3)}))
    mapping = json.loads((tmp_path / "m" / "metadata.json").read_text())["loading_strategy"]["state_dict_mapping"]
    change_metadata(tmp_path / "m", state_dict_mapping=mapping | {"allow_unexpected": ["vision.*"]})
    for drop_heads, name in ((False, "made"), (True, "plain")):
        made = export(tmp_path / "m", tmp_path / name, drop_heads=drop_heads)
        assert torch.equal(tensors(made)["vision.weight"], torch.arange(3))
        assert wmtp.load(made).receipt.left_unused == ("vision.weight",)


def test_a_model_without_native_heads_is_refused_by_name(tmp_path):
    from checkpoints import write_mtp_checkpoint

    write_mtp_checkpoint(tmp_path / "m", tiny_mtp())
    with pytest.raises(CheckpointError, match="loads as MTPForCausalLM, which has no native heads"):
        export(tmp_path / "m", tmp_path / "made")


@pytest.mark.parametrize("family", [*FAMILIES, *EXPERT_FAMILIES])
def test_a_stripped_directory_that_still_declares_heads_is_refused_by_name(tmp_path, family):
    write_native(tmp_path / "m", family)
    init_metadata(tmp_path / "m")
    names = native_names(json.loads((tmp_path / "m" / "config.json").read_text()), tensors(tmp_path / "m"))
    change_tensors(tmp_path / "m", lambda held: [held.pop(name) for name in names])
    with pytest.raises(CheckpointError, match="mtp declares native modules, and the files hold no tensor of") as caught:
        wmtp.load_model(tmp_path / "m")
    assert names
    assert "set the count in config.json to 0" in caught.value.hint


def test_a_base_model_whose_configuration_counts_modules_that_are_gone_is_refused(tmp_path):
    write_native(tmp_path / "m", "mellum")
    init_metadata(tmp_path / "m")
    made = export(tmp_path / "m", tmp_path / "made", drop_heads=True)
    change_config(made, num_nextn_predict_layers=1)
    with pytest.raises(CheckpointError, match=r"num_nextn_predict_layers is 1, and the files hold no tensor"):
        wmtp.load_model(made)


@pytest.mark.parametrize(
    ("family", "field", "changed"),
    [
        ("mellum", "num_nextn_predict_layers", {"num_nextn_predict_layers": 3}),
        ("qwen3_5", "mtp_num_hidden_layers", {"mtp_num_hidden_layers": 3}),
        ("qwen3_5", "text_config.mtp_num_hidden_layers", {"text_config": {"mtp_num_hidden_layers": 3}}),
        ("inkling", "num_mtp_layers", {"num_mtp_layers": 3}),
        ("inkling", "mtp_config.num_nextn_predict_layers", {"mtp_config": {"num_nextn_predict_layers": 3}}),
    ],
)
def test_a_count_that_is_not_the_declared_one_is_refused(tmp_path, family, field, changed):
    model = write_native(tmp_path / "m", family)
    init_metadata(tmp_path / "m")
    change_config(tmp_path / "m", **changed)
    with pytest.raises(CheckpointError) as caught:
        wmtp.load_model(tmp_path / "m")
    said = f"{field} is 3, but mtp.conventions.block_like in metadata.json declares {len(model.heads)} native module"
    assert said in str(caught.value)


def test_one_module_of_two_that_is_absent_is_named(tmp_path):
    write_native(tmp_path / "m", "inkling")
    init_metadata(tmp_path / "m")
    change_tensors(tmp_path / "m", lambda held: held.pop("model.mtp.layers.1.input_proj.weight"))
    with pytest.raises(wmtp.errors.PlanError) as caught:
        wmtp.load_model(tmp_path / "m")
    assert "layers" in str(caught.value)


def test_modules_that_are_not_declared_are_refused_by_name(tmp_path):
    write_native(tmp_path / "m", "mellum")
    init_metadata(tmp_path / "m")
    strategy = {"loader_type": "huggingface", "transformers_class": "AutoModelForCausalLM", "model_class_name": None}
    change_metadata(tmp_path / "m", **strategy, state_dict_mapping={})
    document = json.loads((tmp_path / "m" / "metadata.json").read_text())
    (tmp_path / "m" / "metadata.json").write_text(json.dumps(document | {"mtp": None}))
    with pytest.raises(wmtp.errors.PlanError, match=r"mtp\.fc\.weight"):
        wmtp.load_model(tmp_path / "m")
    assert AutoConfig.from_pretrained(tmp_path / "m").num_mtp_layers == 1


def test_heads_are_dropped_only_from_a_form_that_has_both(tmp_path):
    with pytest.raises(wmtp.errors.SettingsError, match="the target medusa is not one of a trunk with its heads"):
        wmtp.export(tmp_path / "m", tmp_path / "made", to="medusa", drop_heads=True)
