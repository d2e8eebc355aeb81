"""Families of native heads: each is drafted, or named with what stands against it; none is lost without a word."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM

import wmtp
from checkpoints import change_config, change_tensors
from native_files import write_native
from native_models import SIZES
from tiny_models import VOCAB, tokens
from wmtp.authoring.init import init_metadata
from wmtp.authoring.native import draft_native
from wmtp.authoring.native_families import DRAFTING, UNDRAFTED, conventions_of
from wmtp.checkpoint.families import FAMILIES, family_named
from wmtp.checkpoint.tensors import TensorInfo
from wmtp.errors import CheckpointError
from wmtp.metadata.file import write_metadata

_NORMED = {"enorm": (32,), "hnorm": (32,), "eh_proj": (32, 64)}
_EXPERTS = {"n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
# What config.json says beside the sizes, the sizes that it does not have, and tensors of the modules.
TRUNKS = {
    "mimo_v2_flash": (
        _EXPERTS | {"v_head_dim": 8, "layer_types": ["full_attention", "sliding_attention"]},
        (),
        {f"model.mtp.layers.{i}.{part}.weight": shape for i in range(3) for part, shape in _NORMED.items()},
    ),
    "nemotron_h": (
        _EXPERTS
        | {
            "layers_block_type": ["attention", "moe"], "moe_shared_expert_intermediate_size": 16,
            "num_nextn_predict_layers": 1, "mtp_layers_block_type": ["attention", "moe"],
        },
        ("num_hidden_layers",),
        {f"mtp.layers.0.{part}.weight": shape for part, shape in _NORMED.items()}
        | {"mtp.layers.0.mixer.q_proj.weight": (32, 32), "mtp.layers.1.final_layernorm.weight": (32,)},
    ),
    "longcat_flash": (
        {
            "num_layers": 1, "ffn_hidden_size": 48, "expert_ffn_hidden_size": 16, "n_routed_experts": 4,
            "zero_expert_num": 1, "moe_topk": 2, "q_lora_rank": 16, "kv_lora_rank": 16, "qk_rope_head_dim": 8,
            "qk_nope_head_dim": 8, "v_head_dim": 8, "num_key_value_heads": 4, "num_nextn_predict_layers": 1,
        },
        ("num_hidden_layers",),
        {"model.mtp.norm.weight": (32,), "model.mtp.embed_tokens.weight": (VOCAB, 32)}
        | {f"model.mtp.layers.0.{part}.weight": shape for part, shape in _NORMED.items()},
    ),
}  # fmt: skip


def write_trunk(directory, family):
    """A trunk as transformers saves it, with modules beside it; returns its model and the modules' names."""
    own, absent, modules = TRUNKS[family]
    config = {key: value for key, value in SIZES.items() if key not in absent} | own
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **config)).eval()
    model.save_pretrained(directory)
    made = {name: torch.ones(shape) for name, shape in modules.items()}
    save_file(load_file(directory / "model.safetensors") | made, directory / "model.safetensors", {"format": "pt"})
    change_config(directory, **{key: value for key, value in own.items() if "nextn" in key})
    return model, set(modules)


def notes(directory):
    return " ".join(init_metadata(directory).notes)


def test_every_family_is_drafted_or_has_a_reason_against_it():
    assert {family.name for family in FAMILIES} == DRAFTING.keys() | UNDRAFTED.keys()
    assert not DRAFTING.keys() & UNDRAFTED.keys()
    unknown = {family.name for family in FAMILIES if None in (family.layout.hidden, family.layout.order)}
    assert unknown <= UNDRAFTED.keys()


def test_the_documented_conventions_and_reasons_are_those_that_are_drafted_by():
    text = (Path(__file__).parents[2] / "docs/native_heads.md").read_text()
    fields = ("hidden", "concatenation", "first_embedding", "recycled", "final_norm")
    for name, drafting in DRAFTING.items():
        conventions = conventions_of(family_named(name), drafting)
        assert f"| `{name}` | {' | '.join(conventions[field] for field in fields)} |\n" in text
        assert [conventions[field] for field in ("embedding", "unembedding", "input_norms")] == [
            "shared",
            "shared",
            True,
        ]
    assert all(f"| `{name}` | {why} |\n" in text for name, why in UNDRAFTED.items())


@pytest.mark.parametrize("family", TRUNKS)
def test_modules_that_no_declaration_describes_are_named_and_the_trunk_is_loaded_without_them(tmp_path, family):
    model, modules = write_trunk(tmp_path / "m", family)
    said = notes(tmp_path / "m")
    assert f"mtp: none; {len(modules)} tensors of native heads are there ({min(modules)}, " in said
    assert f"of {family}, and no declaration describes its modules: {UNDRAFTED[family]}. They are neither" in said
    loaded, ids = wmtp.load(tmp_path / "m"), tokens(1, 9)
    assert set(loaded.receipt.left_unused) == modules
    with torch.no_grad():
        torch.testing.assert_close(loaded.model(ids).logits, model(ids).logits, rtol=0, atol=1e-5)
    said = f"which has no native heads; {len(modules)} tensors of such are in its files and not declared"
    with pytest.raises(CheckpointError, match=said):
        wmtp.export(tmp_path / "m", tmp_path / "made", to="native")
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("infix", ["", "transformer."])
def test_modules_of_a_trunk_that_transformers_does_not_have_are_named(infix):
    parts = [*_NORMED, f"{infix}shared_head.norm", f"{infix}shared_head.output", f"{infix}self_attn.q_proj"]
    names = ["model.layers.1.mlp.up_proj.weight", *(f"model.layers.2.{part}.weight" for part in parts)]
    said, config = [], {"model_type": "step3p5", "num_hidden_layers": 2, "num_nextn_predict_layers": 1}
    assert (
        draft_native(config, [TensorInfo(name, "F32", (2,), "model.safetensors", 0, 8) for name in names], said) is None
    )
    assert "mtp: none; 6 tensors of native heads are there (model.layers.2.enorm.weight, " in said[0]
    assert "of step3p5, and no declaration describes its modules: transformers has no causal LM of this" in said[0]


@pytest.mark.parametrize("family", ["nemotron_h", "longcat_flash"])
def test_a_stripped_base_model_that_still_counts_modules_is_refused_by_name(tmp_path, family):
    _, modules = write_trunk(tmp_path / "m", family)
    change_tensors(tmp_path / "m", lambda held: [held.pop(name) for name in modules])
    assert "mtp: config.json says num_nextn_predict_layers: 1, and the files hold no tensor" in notes(tmp_path / "m")
    write_metadata(tmp_path / "m", wmtp.load_metadata(tmp_path / "m").model_copy(update={"wmtp_type": "base_model"}))
    with pytest.raises(
        CheckpointError, match="num_nextn_predict_layers is 1, and the files hold no tensor of a native"
    ):
        wmtp.load_model(tmp_path / "m")


def test_a_stripped_release_is_told_that_its_modules_are_lost(tmp_path):
    write_native(tmp_path / "m", "qwen3_5")
    change_tensors(tmp_path / "m", lambda held: [held.pop(name) for name in list(held) if name.startswith("mtp.")])
    said = notes(tmp_path / "m")
    assert "mtp: config.json says mtp_num_hidden_layers: 1, and the files hold no tensor of a native module" in said
    assert "take the release that still has them; without, set it to 0, or servers look for them" in said


def test_a_module_with_attention_that_no_such_layer_has_is_not_drafted(tmp_path):
    # The one dense layer of the trunk has sliding attention: its tensors fit, and it would compute something else.
    write_native(tmp_path / "m", "exaone_moe", mtp_layer_types=["full_attention"])
    said = notes(tmp_path / "m")
    assert "no layer of the trunk with such tensors has their full_attention; declare them by hand" in said
    assert wmtp.load_metadata(tmp_path / "m").mtp is None
