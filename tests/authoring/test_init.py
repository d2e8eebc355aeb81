import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    Gemma3ForConditionalGeneration,
    GPT2LMHeadModel,
    LlamaForSequenceClassification,
    LlamaForTokenClassification,
    MixtralConfig,
    MixtralForCausalLM,
)

import wmtp
from checkpoints import change_config, change_tensors, write_custom, write_llama_checkpoint, write_mtp_checkpoint
from native_files import write_native
from tiny_models import gemma3_config, tiny_config, tiny_mtp
from tiny_tokenizer import build_tokenizer
from wmtp.authoring.init import draft_metadata, fitting_algorithms, init_metadata
from wmtp.errors import CheckpointError, MetadataError, NotFoundError
from wmtp.storage.opening import open_store


def draft(directory):
    (directory / "metadata.json").unlink(missing_ok=True)
    return init_metadata(directory)


def test_a_plain_causal_lm_is_drafted_as_a_reference_model_that_loads(tmp_path):
    found = draft(write_llama_checkpoint(tmp_path)).metadata
    assert (found.wmtp_type, found.training_algorithm, found.base_architecture) == (
        "reference_model",
        "baseline",
        "llama",
    )
    assert found.loading_strategy.transformers_class == "LlamaForCausalLM"
    assert set(found.loading_strategy.required_files) >= {"config.json", "model.safetensors", "tokenizer.json"}
    assert found.algorithm_compatibility == ["rho1-wmtp"]
    assert found.tokenizer.vocab_size == len(build_tokenizer())
    assert type(wmtp.load_model(tmp_path)).__name__ == "LlamaForCausalLM"


def test_the_first_note_on_a_plain_causal_lm_says_how_it_becomes_a_base_model(tmp_path):
    write_llama_checkpoint(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "architectures": ["LamaLM"]}))
    first, second = draft(tmp_path).notes[:2]
    assert first.startswith("wmtp_type: reference_model, which scores tokens for another model and is not trained")
    assert f"'wmtp grow {tmp_path} NEW --heads 4' writes a base model" in first
    assert second.startswith("loading_strategy.transformers_class: AutoModelForCausalLM")
    fields = json.loads("{" + first.partition("one head, set ")[2] + "}")
    document = json.loads((tmp_path / "metadata.json").read_text())
    (tmp_path / "metadata.json").write_text(json.dumps({**document, **fields}))
    assert wmtp.load(tmp_path, algorithm="baseline-mtp").metadata.wmtp_type == "base_model"


def test_a_model_that_scores_sequences_is_drafted_as_a_reward_model(tmp_path):
    LlamaForSequenceClassification(tiny_config("llama", num_labels=1, pad_token_id=0)).save_pretrained(tmp_path)
    found = draft(tmp_path)
    assert (found.metadata.wmtp_type, found.metadata.algorithm_compatibility) == ("reward_model", ["critic-wmtp"])
    assert any("no tokenizer.json" in note for note in found.notes)
    wmtp.load_model(tmp_path)


def test_a_class_that_no_role_could_have_is_said_to_be_none_and_declares_no_algorithm(tmp_path):
    LlamaForTokenClassification(tiny_config("llama", num_labels=3)).save_pretrained(tmp_path)
    found = draft(tmp_path)
    assert found.metadata.algorithm_compatibility == []
    assert found.notes[0].startswith(
        "wmtp_type: reference_model, for want of a better one: LlamaForTokenClassification"
    )
    wmtp.load_model(tmp_path)


@pytest.mark.parametrize("head_type", ["linear", "transformer"])
def test_a_built_in_model_is_known_by_its_config(tmp_path, head_type):
    write_mtp_checkpoint(tmp_path / "mtp", tiny_mtp(head_type=head_type))
    found = draft(tmp_path / "mtp").metadata
    assert found.loading_strategy.model_class_name == "MTPForCausalLM"
    assert (found.wmtp_type, found.mtp.n_future_tokens, found.mtp.head_type) == ("base_model", 3, head_type)
    assert found.algorithm_compatibility == ["baseline-mtp", "critic-wmtp", "rho1-wmtp"]
    wmtp.load_model(tmp_path / "mtp")


def test_a_class_of_the_checkpoint_is_found_without_running_it(tmp_path):
    consent, _ = write_custom(tmp_path / "toy")
    found = draft(tmp_path / "toy")
    strategy = found.metadata.loading_strategy
    assert (strategy.model_class_name, strategy.custom_module_file) == ("ToyModel", "modeling.py")
    assert "modeling.py" in strategy.required_files
    assert any("add mtp.n_future_tokens" in note for note in found.notes)
    assert any("nobody agreed to run the class's code" in note for note in found.notes)
    wmtp.load_model(tmp_path / "toy", allow_code=consent)


def test_names_that_need_a_prefix_get_a_drafted_mapping(tmp_path):
    write_llama_checkpoint(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    save_file({f"base_model.{name}": tensor for name, tensor in tensors.items()}, tmp_path / "model.safetensors")
    found = draft(tmp_path)
    assert found.metadata.loading_strategy.state_dict_mapping.remove_prefix == "base_model."
    assert any('state_dict_mapping: {"remove_prefix": "base_model."}' in note for note in found.notes)
    wmtp.load_model(tmp_path)


def test_the_first_gpt2_layout_is_drafted_with_its_prefix_and_mask_buffers(tmp_path):
    model = GPT2LMHeadModel(tiny_config("gpt2"))
    model.save_pretrained(tmp_path)
    stored = {
        name.removeprefix("transformer."): tensor.clone() for name, tensor in model.transformer.state_dict().items()
    }
    buffers = {f"h.{layer}.attn.bias": torch.ones(1, 1, 64, 64) for layer in range(2)}
    save_file(stored | buffers, tmp_path / "model.safetensors")
    mapping = draft(tmp_path).metadata.loading_strategy.state_dict_mapping
    assert mapping.add_prefix == "transformer."
    assert mapping.allow_unexpected == ["h.*.attn.bias"]
    wmtp.load_model(tmp_path)


def test_tensors_that_fit_nothing_are_drafted_with_a_warning(tmp_path):
    write_llama_checkpoint(tmp_path)
    save_file({"odd": torch.zeros(2)}, tmp_path / "model.safetensors")
    notes = draft(tmp_path).notes
    assert any("state_dict_mapping: empty, and the checkpoint does not load: " in note for note in notes)
    assert any("unexpected: no parameter for odd" in note or "missing: no tensor for " in note for note in notes)


@pytest.mark.parametrize(
    ("wrap", "prefix"),
    [("_fsdp_wrapped_module", "layers.0."), ("_orig_mod", "mlp."), ("_checkpoint_wrapped_module", "self_attn.")],
)
def test_names_with_wrappers_inside_get_a_drafted_mapping_that_loads(tmp_path, wrap, prefix):
    write_llama_checkpoint(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    wrapped = {f"module.{name}".replace(prefix, f"{wrap}.{prefix}{wrap}."): value for name, value in tensors.items()}
    save_file(wrapped, tmp_path / "model.safetensors")
    mapping = draft(tmp_path).metadata.loading_strategy.state_dict_mapping
    assert mapping.key_transforms
    assert mapping.allow_unexpected == []
    wmtp.load_model(tmp_path)


def test_parts_of_an_adapter_are_named_and_no_mapping_is_drafted_around_them(tmp_path):
    write_llama_checkpoint(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    tensors["model.layers.0.mlp.up_proj.lora_A.default.weight"] = torch.zeros(2, 32)
    save_file(tensors, tmp_path / "model.safetensors")
    found = draft(tmp_path)
    assert found.metadata.loading_strategy.state_dict_mapping.allow_unexpected == []
    assert any("lora_A.default.weight tells of an adapter" in note for note in found.notes)


def test_an_architecture_that_transformers_does_not_know_is_drafted_with_a_warning(tmp_path):
    write_llama_checkpoint(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text()) | {"model_type": "lama", "architectures": ["LamaLM"]}
    (tmp_path / "config.json").write_text(json.dumps(config))
    notes = draft(tmp_path).notes
    assert any("config.json names 'LamaLM', which is no class of transformers" in note for note in notes)
    assert any("the model could not be built" in note for note in notes)


def test_an_existing_metadata_is_never_overwritten(tmp_path):
    write_llama_checkpoint(tmp_path)
    with pytest.raises(MetadataError, match="already there") as caught:
        init_metadata(tmp_path)
    assert "wmtp upgrade" in caught.value.hint


def test_without_config_or_weights_nothing_is_written(tmp_path):
    with pytest.raises(NotFoundError, match=r"config\.json"):
        init_metadata(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(NotFoundError, match=r"no model\.safetensors"):
        init_metadata(tmp_path)
    save_file({"x": torch.zeros(1)}, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match="model_type is null"):
        init_metadata(tmp_path)
    assert not (tmp_path / "metadata.json").exists()


def test_the_text_model_of_one_that_sees_is_offered_and_drafted_by_its_class(tmp_path):
    torch.manual_seed(0)
    whole = Gemma3ForConditionalGeneration(gemma3_config())
    whole.save_pretrained(tmp_path)
    offer = f"remove metadata.json and type 'wmtp init {tmp_path} --class Gemma3ForCausalLM'"
    assert any(offer in note for note in draft(tmp_path).notes)
    (tmp_path / "metadata.json").unlink()
    assert not any("--class" in note for note in init_metadata(tmp_path, "Gemma3ForCausalLM").notes)
    text = wmtp.load_model(tmp_path)
    assert type(text).__name__ == "Gemma3ForCausalLM"
    ids = torch.arange(8).view(1, 8)
    with torch.no_grad():
        assert torch.equal(text.eval()(ids).logits, whole.eval()(ids).logits)


def test_a_class_that_transformers_lacks_is_refused_with_the_nearest(tmp_path):
    write_llama_checkpoint(tmp_path, metadata=False)
    with pytest.raises(MetadataError, match="'LamaForCausalLM' is no model class of transformers") as caught:
        init_metadata(tmp_path, "LamaForCausalLM")
    assert "did you mean 'LlamaForCausalLM'?" in caught.value.hint
    assert not (tmp_path / "metadata.json").exists()


@pytest.mark.parametrize(
    ("code", "said"), [("def (", "not Python"), ("x = 1\n", "defines no class"), ("\udcff", "not Python")]
)
def test_a_module_without_a_class_is_refused(tmp_path, code, said):
    write_custom(tmp_path / "toy")
    (tmp_path / "toy" / "modeling.py").write_bytes(code.encode(errors="surrogateescape"))
    with pytest.raises(CheckpointError, match=said):
        draft_metadata(open_store(tmp_path / "toy"))


def test_fitting_algorithms_are_those_with_a_role_for_the_type():
    assert fitting_algorithms("base_model") == ["baseline-mtp", "critic-wmtp", "rho1-wmtp"]
    assert fitting_algorithms("reward_model") == ["critic-wmtp"]
    assert fitting_algorithms("teapot") == []


def test_where_a_size_is_wrong_the_mapping_is_drafted_and_the_shapes_are_said(tmp_path):
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = MixtralConfig(**sizes, num_key_value_heads=2, vocab_size=32, num_local_experts=4)
    MixtralForCausalLM(config).save_pretrained(tmp_path)
    right = draft(tmp_path).metadata.loading_strategy.state_dict_mapping
    change_config(tmp_path, num_local_experts=3)
    notes = draft(tmp_path).notes
    assert wmtp.load_metadata(tmp_path).loading_strategy.state_dict_mapping == right
    (said,) = [note for note in notes if note.startswith("state_dict_mapping")]
    assert "by which every tensor has its parameter; but the checkpoint does not load" in said
    assert "block_sparse_moe.gate.weight is [4, 16] in model.safetensors, the model has [3, 16]" in said
    change_config(tmp_path, num_local_experts=4)
    assert type(wmtp.load_model(tmp_path)).__name__ == "MixtralForCausalLM"


@pytest.mark.parametrize("config", [{"model_type": "medusa"}, {"model_type": "llama", "medusa_num_heads": 3}])
def test_medusa_heads_alone_are_no_model(tmp_path, config):
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="these are Medusa heads alone") as caught:
        init_metadata(tmp_path)
    assert caught.value.hint.startswith(f"'wmtp validate {tmp_path} --for vllm'")
    assert not (tmp_path / "metadata.json").exists()


def test_heads_that_config_json_counts_and_a_save_left_out_are_noted(tmp_path):
    write_native(tmp_path / "m", "qwen3_5")
    change_tensors(tmp_path / "m", lambda held: [held.pop(name) for name in list(held) if name.startswith("mtp.")])
    found = draft(tmp_path / "m")
    assert found.metadata.mtp is None
    assert any(note.startswith("mtp: config.json says mtp_num_hidden_layers: 1,") for note in found.notes)
    change_config(tmp_path / "m", mtp_num_hidden_layers=0)
    assert not any(note.startswith("mtp:") for note in draft(tmp_path / "m").notes)
