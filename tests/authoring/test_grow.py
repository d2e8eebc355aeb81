import json
import math

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    LlamaForSequenceClassification,
    MarianConfig,
    MarianForCausalLM,
    Qwen2VLForConditionalGeneration,
    RobertaConfig,
    RobertaForCausalLM,
)

import wmtp
from tiny_models import ARCHITECTURES, HEAD_TYPES, VOCAB, qwen2_vl_config, tiny_config, tokens
from tiny_tokenizer import build_tokenizer
from wmtp.authoring.grow import grow
from wmtp.authoring.init import init_metadata
from wmtp.errors import CheckpointError, DataError, NotFoundError, StorageError
from wmtp.publishing.publish import verify_published


def save_plain(directory, architecture="llama", tokenizer=False, **changes):
    """A checkpoint as transformers writes it, with a drafted metadata.json."""
    tokenizer = build_tokenizer() if tokenizer else None
    if tokenizer:
        changes["vocab_size"] = len(tokenizer)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(tiny_config(architecture, **changes)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(5)
    model.save_pretrained(directory)
    if tokenizer:
        tokenizer.save_pretrained(directory)
    init_metadata(directory)
    return model


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("head_type", HEAD_TYPES)
@pytest.mark.parametrize("tied", [True, False])
def test_every_head_of_a_grown_model_is_bit_equal_to_the_source(tmp_path, architecture, head_type, tied):
    source = save_plain(tmp_path / "plain", architecture, tie_word_embeddings=tied)
    grow(tmp_path / "plain", tmp_path / "mtp", heads=3, head_type=head_type)
    loaded = wmtp.load(tmp_path / "mtp", algorithm="baseline-mtp")
    ids = tokens(2, 12)
    with torch.no_grad():
        expected, logits = source(ids).logits, loaded.model(ids).logits
    assert logits.shape == (2, 12, 3, VOCAB)
    for k in range(3):
        assert torch.equal(logits[:, :, k], expected)


def test_a_grown_checkpoint_says_what_it_is(tmp_path):
    save_plain(tmp_path / "plain", tokenizer=True)
    grow(tmp_path / "plain", tmp_path / "mtp", heads=4)
    metadata, source = wmtp.load_metadata(tmp_path / "mtp"), wmtp.load_metadata(tmp_path / "plain")
    assert metadata.wmtp_type == "base_model"
    assert metadata.loading_strategy.model_class_name == "MTPForCausalLM"
    declared = metadata.mtp.model_dump(exclude_none=True)
    assert declared == {"kind": "parallel_heads", "n_future_tokens": 4, "head_type": "transformer"}
    assert metadata.tokenizer == source.tokenizer is not None
    assert metadata.algorithm_compatibility == ["baseline-mtp", "critic-wmtp", "rho1-wmtp"]
    assert metadata.dtype == "float32"
    assert metadata.created_by == f"wmtp {wmtp.__version__}"
    assert metadata.provenance["parent"]["uri"] == str(tmp_path / "plain")
    assert [entry["path"] for entry in metadata.provenance["parent"]["files"]] == ["config.json", "model.safetensors"]
    config = json.loads((tmp_path / "mtp" / "config.json").read_text())
    assert config["mtp_config"] == {"n_future_tokens": 4, "head_type": "transformer"}
    assert config["architectures"] == ["MTPForCausalLM"]
    assert set(metadata.loading_strategy.required_files) >= {"config.json", "model.safetensors", "tokenizer.json"}
    verify_published(tmp_path / "mtp")


def test_the_cross_entropy_of_every_head_at_step_0_is_reported(tmp_path):
    source = save_plain(tmp_path / "plain", tokenizer=True)
    tokenizer = wmtp.load(tmp_path / "plain").tokenizer
    text = "def add(a, b):\n    return a + b\n" * 2
    report = grow(tmp_path / "plain", tmp_path / "mtp", heads=3, sample_text=text)
    ids = torch.tensor(tokenizer(text).input_ids)
    with torch.no_grad():
        log_probs = source(ids.unsqueeze(0)).logits[0].log_softmax(-1)
    for k in range(1, 4):
        nll = [-log_probs[t, ids[t + k]].item() for t in range(len(ids) - k)]
        assert report.cross_entropy[k - 1] == pytest.approx(sum(nll) / len(nll), rel=1e-5)
    assert report.sample == f"{len(ids)} tokens of text"
    summary = "\n".join(report.summary())
    assert f"  head 3: {report.cross_entropy[2]:.4f}" in summary
    assert "head 1 is bit-equal to the source" in summary


def test_without_a_tokenizer_random_tokens_are_used_and_it_is_said(tmp_path):
    save_plain(tmp_path / "plain")
    report = grow(tmp_path / "plain", tmp_path / "mtp", heads=2)
    assert report.sample == "64 random tokens (there is no tokenizer)"
    assert all(math.isfinite(ce) for ce in report.cross_entropy)


@pytest.mark.parametrize("head_type", HEAD_TYPES)
def test_parameters_are_counted_once(tmp_path, head_type):
    source = save_plain(tmp_path / "plain", tie_word_embeddings=True)
    report = grow(tmp_path / "plain", tmp_path / "mtp", heads=3, head_type=head_type)
    part = source.model.layers[-1] if head_type == "transformer" else source.lm_head
    blocks = source.config.hidden_size**2 if head_type == "resblock" else 0
    assert report.num_new_parameters == 2 * (sum(parameter.numel() for parameter in part.parameters()) + blocks)
    assert report.num_parameters == sum(p.numel() for p in source.parameters()) + report.num_new_parameters


def test_bf16_stays_bf16(tmp_path):
    save_plain(tmp_path / "plain")
    report = grow(tmp_path / "plain", tmp_path / "mtp", heads=2, dtype="bfloat16")
    loaded = wmtp.load(tmp_path / "mtp")
    assert {parameter.dtype for parameter in loaded.model.parameters()} == {torch.bfloat16}
    assert loaded.metadata.dtype == "bfloat16"
    assert report.cross_entropy[0] != torch.tensor(report.cross_entropy[0]).bfloat16().item()


def test_a_source_without_metadata_is_told_how_to_get_it(tmp_path):
    AutoModelForCausalLM.from_config(tiny_config("llama")).save_pretrained(tmp_path / "plain")
    with pytest.raises(NotFoundError, match=r"metadata\.json: no such file") as caught:
        grow(tmp_path / "plain", tmp_path / "mtp", heads=2)
    assert f"wmtp init {tmp_path / 'plain'}" in caught.value.hint
    assert not (tmp_path / "mtp").exists()


def test_what_has_heads_already_is_refused(tmp_path):
    save_plain(tmp_path / "plain")
    grow(tmp_path / "plain", tmp_path / "mtp", heads=2)
    with pytest.raises(CheckpointError, match="loads as MTPForCausalLM, which is no plain causal LM") as caught:
        grow(tmp_path / "mtp", tmp_path / "more", heads=4)
    assert f"wmtp export {tmp_path / 'mtp'} TRUNK" in caught.value.hint


def test_a_reward_model_is_refused(tmp_path):
    LlamaForSequenceClassification(tiny_config("llama", num_labels=1)).save_pretrained(tmp_path / "rm")
    init_metadata(tmp_path / "rm")
    with pytest.raises(CheckpointError, match="LlamaForSequenceClassification, which is no plain causal LM"):
        grow(tmp_path / "rm", tmp_path / "mtp", heads=2)


def test_a_sample_that_is_too_short_is_refused(tmp_path):
    save_plain(tmp_path / "plain", tokenizer=True)
    with pytest.raises(DataError, match="the sample has 1 tokens, for 2 heads"):
        grow(tmp_path / "plain", tmp_path / "mtp", heads=2, sample_text="a")
    assert not (tmp_path / "mtp").exists()


def test_nothing_that_exists_is_overwritten(tmp_path):
    save_plain(tmp_path / "plain")
    (tmp_path / "mtp").mkdir()
    with pytest.raises(StorageError, match="already exists"):
        grow(tmp_path / "plain", tmp_path / "mtp", heads=2)


def test_no_head_at_all_is_refused(tmp_path):
    save_plain(tmp_path / "plain")
    with pytest.raises(CheckpointError, match="n_future_tokens is 0"):
        grow(tmp_path / "plain", tmp_path / "mtp", heads=0)


def test_weights_that_are_not_finite_are_named_instead_of_a_difference_between_heads(tmp_path):
    save_plain(tmp_path / "plain")
    path = tmp_path / "plain/model.safetensors"
    tensors = load_file(path)
    tensors["model.layers.0.mlp.up_proj.weight"][0, :2] = math.nan
    tensors["model.norm.weight"][1] = -math.inf
    save_file(tensors, path, {"format": "pt"})
    with pytest.raises(CheckpointError) as refusal:
        grow(tmp_path / "plain", tmp_path / "mtp", heads=2)
    assert refusal.value.problem == f"{tmp_path / 'plain'}: 2 tensors have values that are not finite"
    assert refusal.value.faults == (
        "'model.layers.0.mlp.up_proj.weight' in 'model.safetensors': 2 NaN, 0 infinite",
        "'model.norm.weight' in 'model.safetensors': 0 NaN, 1 infinite",
    )
    assert not (tmp_path / "mtp").exists()


def test_finite_weights_whose_logits_overflow_are_said_to_need_another_dtype(tmp_path):
    save_plain(tmp_path / "plain")
    path = tmp_path / "plain/model.safetensors"
    tensors = load_file(path)
    save_file(tensors | {"model.norm.weight": torch.full_like(tensors["model.norm.weight"], 3e38)}, path)
    with pytest.raises(CheckpointError, match="own logits are NaN or infinite in float32, though all of its weights"):
        grow(tmp_path / "plain", tmp_path / "mtp", heads=2)


def save_seeing(directory):
    """A model for images and text, whose configuration AutoModelForCausalLM takes for nothing that it knows."""
    torch.manual_seed(0)
    model = Qwen2VLForConditionalGeneration(qwen2_vl_config()).eval()
    model.save_pretrained(directory, save_original_format=False)
    init_metadata(directory)
    return model


@pytest.mark.parametrize("head_type", HEAD_TYPES)
def test_a_model_for_images_and_text_is_grown_loads_again_and_is_exported_as_its_own_class(tmp_path, head_type):
    source, ids = save_seeing(tmp_path / "plain"), tokens(1, 8)
    grow(tmp_path / "plain", tmp_path / "mtp", heads=2, head_type=head_type)
    config = json.loads((tmp_path / "mtp/config.json").read_text())
    assert config["mtp_config"]["trunk_class"] == "Qwen2VLForConditionalGeneration"
    wmtp.export(str(tmp_path / "mtp"), tmp_path / "back", to="transformers")
    with torch.no_grad():
        expected, logits = source(ids).logits, wmtp.load_model(tmp_path / "mtp")(ids).logits
        assert torch.equal(wmtp.load_model(tmp_path / "back")(ids).logits, expected)
    assert torch.equal(logits[:, :, 0], expected)
    assert torch.equal(logits[:, :, 1], expected)


def test_what_would_not_load_is_not_written(tmp_path):
    """Marian ties an unembedding of the decoder's vocabulary, and builds one of the encoder's."""
    sizes = {"d_model": 32, "decoder_layers": 1, "decoder_attention_heads": 4, "decoder_ffn_dim": 48}
    config = MarianConfig(**sizes, vocab_size=64, decoder_vocab_size=96, pad_token_id=0, max_position_embeddings=64)
    MarianForCausalLM(config).save_pretrained(tmp_path / "plain")
    init_metadata(tmp_path / "plain")
    with pytest.raises(CheckpointError, match="is not written, as it would not load: ") as caught:
        grow(tmp_path / "plain", tmp_path / "mtp", heads=2, head_type="linear")
    assert caught.value.problem.startswith(f"{tmp_path / 'mtp'}: is not written")
    assert "heads.2.unembedding.weight is [96, 32]" in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["plain"]


def test_what_a_model_raises_when_it_is_asked_is_an_error_that_names_it(tmp_path):
    """RoBERTa counts positions from 2, so that a sample of as many tokens as it has positions is too long for it."""
    torch.manual_seed(0)
    config = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 4}
    config |= {"vocab_size": 64, "max_position_embeddings": 40, "is_decoder": True}
    RobertaForCausalLM(RobertaConfig(**config)).save_pretrained(tmp_path / "plain")
    init_metadata(tmp_path / "plain")
    with pytest.raises(CheckpointError, match="RobertaForCausalLM: it raised ") as caught:
        grow(tmp_path / "plain", tmp_path / "mtp", heads=2, head_type="linear")
    assert "on 40 token ids" in caught.value.problem
    assert "transformers' own forward pass" in caught.value.hint
    assert not (tmp_path / "mtp").exists()
