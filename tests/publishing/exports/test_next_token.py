import json

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer, Gemma3ForConditionalGeneration

import wmtp
from checkpoints import change_config, metadata_document
from tiny_models import ARCHITECTURES, HEAD_TYPES, gemma3_config, tiny_mtp, tokens
from wmtp.authoring.grow import grow
from wmtp.authoring.init import init_metadata
from wmtp.errors import CheckpointError
from wmtp.metadata.schema import ModelMetadata
from wmtp.publishing.exports.next_token import export_module
from wmtp.publishing.publish import publish_directory, verify_published
from wmtp.publishing.write import write_model_directory


def mtp_metadata(model) -> ModelMetadata:
    document = metadata_document(
        training_algorithm="baseline",
        base_architecture=model.config.model_type,
        mtp={"n_future_tokens": model.num_heads, "head_type": model.head_type},
    )
    return ModelMetadata.model_validate(document)


def save_mtp(directory, model, **extra_files):
    with publish_directory(directory) as unfinished:
        write_model_directory(
            unfinished,
            state_dict=model.state_dict(),
            config=json.loads(model.config.to_json_string()),
            metadata=mtp_metadata(model),
            extra_files=extra_files,
        )


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("head_type", HEAD_TYPES)
@pytest.mark.parametrize("tied", [True, False])
def test_a_saved_model_loads_bit_equal_and_its_export_is_head_1_in_transformers(
    tmp_path, architecture, head_type, tied
):
    model, ids = tiny_mtp(architecture, head_type=head_type, tie_word_embeddings=tied), tokens(2, 12)
    save_mtp(tmp_path / "mtp", model)
    assert wmtp.export(tmp_path / "mtp", tmp_path / "plain", to="transformers") == tmp_path / "plain"
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "plain").eval()
    with torch.no_grad():
        expected = model(ids).logits
        assert torch.equal(wmtp.load_model(tmp_path / "mtp")(ids).logits, expected)
        assert torch.equal(plain(ids).logits, expected[:, :, 0])
        assert torch.equal(wmtp.load_model(tmp_path / "plain")(ids).logits, expected[:, :, 0])


def test_an_export_says_what_it_is_and_carries_its_tokenizer(tmp_path):
    from tiny_tokenizer import build_tokenizer

    tokenizer = build_tokenizer()
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    model = tiny_mtp(vocab_size=len(tokenizer))
    save_mtp(tmp_path / "mtp", model, **{path.name: path for path in (tmp_path / "tokenizer").iterdir()})
    wmtp.export(tmp_path / "mtp", tmp_path / "plain", to="transformers")
    metadata = wmtp.load_metadata(tmp_path / "plain")
    config = json.loads((tmp_path / "plain" / "config.json").read_text())
    assert metadata.loading_strategy.transformers_class == "AutoModelForCausalLM"
    assert metadata.mtp is None
    assert metadata.training_algorithm == "baseline"
    assert metadata.provenance["parent"]["uri"] == str(tmp_path / "mtp")
    assert config["architectures"] == ["LlamaForCausalLM"]
    assert "mtp_config" not in config
    text = "def add(a, b):\n"
    assert AutoTokenizer.from_pretrained(tmp_path / "plain")(text).input_ids == tokenizer(text).input_ids
    verify_published(tmp_path / "plain")


def test_weights_that_changed_dtype_are_not_cast_back_by_a_reader(tmp_path):
    model = tiny_mtp()
    save_mtp(tmp_path / "mtp", model.to(torch.bfloat16))
    wmtp.export(tmp_path / "mtp", tmp_path / "plain", to="transformers", dtype="float32")
    assert json.loads((tmp_path / "plain" / "config.json").read_text())["dtype"] == "float32"
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "plain").dtype == torch.float32


def test_a_model_without_a_trunk_is_refused_by_name(tmp_path):
    with pytest.raises(CheckpointError, match="Linear has no trunk that can stand alone"):
        export_module(
            nn.Linear(2, 2),
            tmp_path / "plain",
            config={},
            metadata=mtp_metadata(tiny_mtp()),
            extra_files={},
        )
    assert not (tmp_path / "plain").exists()


def test_a_plain_model_is_told_that_it_needs_no_export(tmp_path):
    with pytest.raises(CheckpointError) as caught:
        export_module(
            tiny_mtp().trunk, tmp_path / "plain", config={}, metadata=mtp_metadata(tiny_mtp()), extra_files={}
        )
    assert caught.value.problem == "LlamaForCausalLM is a model of transformers already, without heads"
    assert caught.value.hint.startswith("nothing has to be exported: ")


def save_seeing(directory):
    """A tiny Gemma 3 that sees, as a hub has it, declared as its text model alone."""
    torch.manual_seed(0)
    model = Gemma3ForConditionalGeneration(gemma3_config()).eval()
    model.save_pretrained(directory)
    change_config(directory, eos_token_id=[1, 5])
    (directory / "processor_config.json").write_text("{}")
    init_metadata(directory, "Gemma3ForCausalLM")
    return model


@pytest.mark.parametrize("heads", [0, 2])
def test_a_text_model_out_of_a_larger_one_is_exported_as_a_model_of_its_own(tmp_path, heads):
    whole, ids = save_seeing(tmp_path / "m"), tokens(1, 8)
    source = tmp_path / ("grown" if heads else "m")
    if heads:
        grow(tmp_path / "m", source, heads=heads, head_type="linear")
    wmtp.export(source, tmp_path / "text", to="transformers")
    text, report = AutoModelForCausalLM.from_pretrained(tmp_path / "text", output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    with torch.no_grad():
        assert torch.equal(text.eval()(ids).logits, whole(ids).logits)
        assert torch.equal(wmtp.load_model(tmp_path / "text")(ids).logits, whole(ids).logits)
    config = json.loads((tmp_path / "text" / "config.json").read_text())
    assert (config["model_type"], config["architectures"]) == ("gemma3_text", ["Gemma3ForCausalLM"])
    assert config["eos_token_id"] == [1, 5]  # said beside the text model's part
    assert "vision_config" not in config
    assert (source / "processor_config.json").exists()
    assert not (tmp_path / "text" / "processor_config.json").exists()


def test_a_model_that_sees_keeps_what_a_server_prepares_its_pictures_by(tmp_path):
    save_seeing(tmp_path / "m")
    (tmp_path / "m" / "metadata.json").unlink()
    init_metadata(tmp_path / "m")
    grow(tmp_path / "m", tmp_path / "grown", heads=2, head_type="linear")
    wmtp.export(tmp_path / "grown", tmp_path / "trunk", to="transformers")
    assert (tmp_path / "trunk" / "processor_config.json").read_text() == "{}"
