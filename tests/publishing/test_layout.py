"""Checkpoints are written in the layout in which their source was read."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, LlamaConfig, MixtralConfig, MixtralForCausalLM

import wmtp
from wmtp.authoring.grow import grow
from wmtp.metadata.schema import StateDictMapping
from wmtp.publishing.write import write_model_directory

EXPERTS = "model.layers.{i}.block_sparse_moe.experts.{e}"
MIXTRAL = {
    "key_transforms": {r"\.block_sparse_moe\.gate\.": ".mlp.gate."},
    "tensors": {
        "model.layers.{i}.mlp.experts.gate_up_proj": {
            "concatenate": 1,
            "of": [
                {"stack": 0, "each": "e", "of": f"{EXPERTS}.w1.weight"},
                {"stack": 0, "each": "e", "of": f"{EXPERTS}.w3.weight"},
            ],
        },
        "model.layers.{i}.mlp.experts.down_proj": {"stack": 0, "each": "e", "of": f"{EXPERTS}.w2.weight"},
    },
}


def write_mixtral(directory):
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = MixtralConfig(vocab_size=32, num_key_value_heads=1, num_local_experts=3, **sizes)
    MixtralForCausalLM(config).save_pretrained(directory)
    declare(directory, "mixtral", MIXTRAL)
    return directory


def declare(directory, architecture, mapping):
    strategy = {
        "loader_type": "huggingface",
        "transformers_class": "AutoModelForCausalLM",
        "state_dict_mapping": mapping,
        "required_files": ["config.json", "model.safetensors"],
    }
    document = {
        "wmtp_type": "base_model",
        "training_algorithm": "mtp",
        "base_architecture": architecture,
        "storage_version": "2.0",
        "loading_strategy": strategy,
        "algorithm_compatibility": ["baseline-mtp"],
    }
    (directory / "metadata.json").write_text(json.dumps(document))


def stored(directory):
    with safe_open(directory / "model.safetensors", "pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  it is no dict


def rewritten(source, directory):
    loaded = wmtp.load(str(source))
    directory.mkdir()
    written = write_model_directory(
        directory,
        state_dict=loaded.model.state_dict(),
        config=loaded.checkpoint.config,
        metadata=loaded.metadata,
        source=loaded,
    )
    return written.loading_strategy.state_dict_mapping


def test_what_was_made_of_several_tensors_is_written_as_those_byte_for_byte(tmp_path):
    source = write_mixtral(tmp_path / "mixtral")
    assert rewritten(source, tmp_path / "copy") == StateDictMapping.model_validate(MIXTRAL)
    before, after = stored(source), stored(tmp_path / "copy")
    assert "model.layers.1.block_sparse_moe.experts.2.w3.weight" in before
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_what_was_trained_differs_in_the_tensors_that_hold_it_and_loads_by_the_same_rules(tmp_path):
    loaded = wmtp.load(str(write_mixtral(tmp_path / "mixtral")))
    with torch.no_grad():
        loaded.model.model.layers[0].mlp.experts.gate_up_proj[1, 24:] += 1  # w3 of expert 1
    (tmp_path / "trained").mkdir()
    state = loaded.model.state_dict()
    config = loaded.checkpoint.config
    write_model_directory(
        tmp_path / "trained", state_dict=state, config=config, metadata=loaded.metadata, source=loaded
    )
    before, after = stored(tmp_path / "mixtral"), stored(tmp_path / "trained")
    changed = [name for name in before if not torch.equal(before[name], after[name])]
    assert changed == ["model.layers.0.block_sparse_moe.experts.1.w3.weight"]
    again = wmtp.load_model(str(tmp_path / "trained")).state_dict()
    assert all(torch.equal(value, again[name]) for name, value in state.items())


def test_a_model_that_was_grown_keeps_the_layout_of_its_trunk_and_its_heads_have_their_own_names(tmp_path):
    source = write_mixtral(tmp_path / "mixtral")
    grow(str(source), tmp_path / "grown", heads=3, head_type="linear")
    names = stored(tmp_path / "grown").keys()
    assert names == stored(source).keys() | {"heads.2.unembedding.weight", "heads.3.unembedding.weight"}
    mapping = wmtp.load_metadata(str(tmp_path / "grown")).loading_strategy.state_dict_mapping
    assert list(mapping.key_transforms) == [r"\.block_sparse_moe\.gate\.", "^", r"^trunk\.heads\."]
    expected = wmtp.load_model(str(source)).state_dict()
    found = wmtp.load_model(str(tmp_path / "grown")).trunk.state_dict()
    assert all(torch.equal(value, found[name]) for name, value in expected.items())


def test_rules_that_only_tensors_needed_that_are_left_unused_are_not_written(tmp_path):
    (source := tmp_path / "llama").mkdir()
    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = LlamaConfig(vocab_size=16, num_key_value_heads=1, **sizes)
    tensors = AutoModelForCausalLM.from_config(config).state_dict()
    save_file(
        {f"lm.{name}": tensor for name, tensor in tensors.items()} | {"v.x": torch.ones(2)},
        source / "model.safetensors",
    )
    config.save_pretrained(source)
    mapping = {"remove_prefix": "lm.", "key_transforms": {r"^v\.": "vision."}, "allow_unexpected": ["v.*"]}
    declare(source, "llama", mapping)
    assert rewritten(source, tmp_path / "copy") == StateDictMapping(remove_prefix="lm.")
    assert stored(tmp_path / "copy").keys() == {f"lm.{name}" for name in tensors}


@pytest.mark.parametrize("mapping", [{}, {"allow_unexpected": ["*.inv_freq"]}])
def test_a_model_that_was_read_under_its_own_names_is_grown_under_its_own_names(tmp_path, mapping):
    (source := tmp_path / "llama").mkdir()
    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    AutoModelForCausalLM.from_config(LlamaConfig(vocab_size=16, num_key_value_heads=1, **sizes)).save_pretrained(source)
    declare(source, "llama", mapping)
    grow(str(source), tmp_path / "grown", heads=2, head_type="linear")
    assert all(name.startswith(("trunk.", "heads.2.")) for name in stored(tmp_path / "grown"))


def test_the_trunk_of_a_grown_model_is_exported_in_the_layout_that_it_came_in(tmp_path):
    source = write_mixtral(tmp_path / "mixtral")
    grow(str(source), tmp_path / "grown", heads=2, head_type="linear")
    wmtp.export(str(tmp_path / "grown"), tmp_path / "exported", to="transformers")
    before, after = stored(source), stored(tmp_path / "exported")
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    mapping = wmtp.load_metadata(str(tmp_path / "exported")).loading_strategy.state_dict_mapping
    assert mapping == StateDictMapping.model_validate(MIXTRAL)
    wmtp.load_model(str(tmp_path / "exported"))
