import pytest
import torch

import wmtp
from checkpoints import change_config, change_tensors
from native_files import write_native, write_vision_language
from native_models import EXPERT_FAMILIES, FAMILIES, declared, native
from tiny_models import VOCAB, tokens
from wmtp.authoring.init import init_metadata
from wmtp.models.native import NativeMTPForCausalLM


@pytest.mark.parametrize("family", [*FAMILIES, *EXPERT_FAMILIES])
def test_what_is_drafted_loads_trunk_and_modules_as_one(tmp_path, family):
    model, ids = write_native(tmp_path / "m", family), tokens(2, 9)
    drafted = init_metadata(tmp_path / "m").metadata
    loaded = wmtp.load(tmp_path / "m")
    held, expected = loaded.model.state_dict(), model.state_dict()
    assert held.keys() == expected.keys()
    assert all(torch.equal(held[name], value) for name, value in expected.items())
    with torch.no_grad():
        # Products of experts are rounded by where their memory begins.
        atol = 1e-5 if family in EXPERT_FAMILIES else 0
        torch.testing.assert_close(loaded.model(ids).logits, model(ids).logits, rtol=0, atol=atol)
    assert drafted.mtp.model_dump(exclude_defaults=True) == declared(family)
    assert drafted.num_heads == loaded.model.num_heads
    assert not loaded.receipt.left_unused
    assert not loaded.receipt.kept_initial


def test_copies_of_embedding_and_unembedding_are_read_and_proven_equal(tmp_path):
    write_native(tmp_path / "m", "deepseek")
    init_metadata(tmp_path / "m")
    model = wmtp.load_model(tmp_path / "m")
    assert model.heads["2"].embed_tokens.weight is model.trunk.get_input_embeddings().weight
    change_tensors(tmp_path / "m", lambda held: held["model.layers.2.embed_tokens.weight"].mul_(2))
    with pytest.raises(wmtp.errors.WmtpError, match="embed_tokens"):
        wmtp.load_model(tmp_path / "m")


def test_absent_copies_are_fine(tmp_path):
    write_native(tmp_path / "m", "deepseek", model=native("deepseek", embedding="shared", unembedding="shared"))
    assert init_metadata(tmp_path / "m").metadata.mtp.conventions.embedding == "shared"
    assert isinstance(wmtp.load_model(tmp_path / "m"), NativeMTPForCausalLM)


@pytest.mark.parametrize(
    ("family", "changed"),
    [
        ("deepseek", {"block_like": [1, 1], "embedding": "shared", "unembedding": "shared"}),
        ("mimo", {"block_like": [1, 1]}),
        ("ernie", {"block_like": [1, 1]}),
        ("inkling", {"final_norm": "shared"}),
    ],
)
def test_two_modules_are_drafted_each_with_its_number_and_a_norm_of_both_as_shared(tmp_path, family, changed):
    expected = native(family, **changed).state_dict()
    write_native(tmp_path / "m", family, model=native(family, **changed), num_nextn_predict_layers=2)
    assert init_metadata(tmp_path / "m").metadata.mtp.model_dump(exclude_defaults=True) == declared(family, **changed)
    held = wmtp.load_model(tmp_path / "m").state_dict()
    assert held.keys() == expected.keys()
    assert all(torch.equal(value, expected[name]) for name, value in held.items())
    assert not torch.equal(held["heads.2.eh_proj.weight"], held["heads.3.eh_proj.weight"])


def test_a_trunk_of_a_type_that_transformers_does_not_know_is_built_as_the_declared_one(tmp_path):
    model, ids = write_native(tmp_path / "m", "mimo", model_type="mimo"), tokens(1, 9)
    drafted = init_metadata(tmp_path / "m").metadata
    assert (drafted.base_architecture, drafted.mtp.conventions.trunk_type) == ("mimo", "qwen2")
    with torch.no_grad():
        assert torch.equal(wmtp.load_model(tmp_path / "m")(ids).logits, model(ids).logits)


@pytest.mark.parametrize(
    ("family", "trunk_class"),
    [("qwen3_5", "Qwen3_5ForConditionalGeneration"), ("exaone4_5", "Exaone4_5_ForConditionalGeneration")],
)
def test_a_vision_language_checkpoint_keeps_its_vision_and_trains_as_text(tmp_path, family, trunk_class):
    text, ids = write_vision_language(tmp_path / "m", family), tokens(2, 9)
    drafted = init_metadata(tmp_path / "m").metadata
    conventions = drafted.mtp.conventions
    assert (conventions.trunk_class, conventions.trunk_type) == (trunk_class, None)
    assert conventions.block_like == declared(family)["conventions"]["block_like"]
    loaded = wmtp.load(tmp_path / "m")
    assert any(name.startswith("trunk.model.visual.") for name in loaded.model.state_dict())
    documents = torch.tensor([[0] * 4 + [1] * 5] * 2)
    with torch.no_grad():
        assert torch.equal(loaded.model(ids).logits, text(ids).logits)
        packed = loaded.model(ids, labels=ids, document_ids=documents)
        torch.testing.assert_close(packed.ce, text(ids, labels=ids, document_ids=documents).ce)


def test_modules_of_an_unknown_family_are_named_and_not_guessed(tmp_path):
    write_native(tmp_path / "m", "mellum", model_type="llama")
    notes = " ".join(init_metadata(tmp_path / "m").notes)
    assert "tensors of native heads are there (mtp.fc.weight, mtp.layers.0.input_layernorm.weight" in notes
    assert "of no family that is known here" in notes


def test_a_family_s_model_type_with_other_names_is_not_drafted(tmp_path):
    write_native(tmp_path / "m", "mellum")
    change_tensors(tmp_path / "m", lambda held: held.update({"mtp.odd.weight": torch.zeros(VOCAB)}))
    change_config(tmp_path / "m", num_nextn_predict_layers=1)
    notes = " ".join(init_metadata(tmp_path / "m").notes)
    assert "mtp.odd.weight do not have the names of mellum; declare them by hand" in notes
