"""Reading a checkpoint deeply refuses whatever loading it would refuse, without filling a model."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

import wmtp as package
from checkpoints import MODELING, write_custom, write_llama_checkpoint
from tiny_tokenizer import build_tokenizer
from wmtp.checkpoint.contents import open_checkpoint
from wmtp.comparison.deep import verify_bytes, verify_filling
from wmtp.errors import IntegrityError, StorageError, TrustError
from wmtp.loaders.base import prepare
from wmtp.settings.loading import LoadOptions
from wmtp.storage.objects import ObjectStore
from wmtp.storage.uri import parse_uri

EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"


@pytest.fixture
def tied(tmp_path):
    """A tied llama whose embedding stands twice in its file, equal so far."""
    directory = write_llama_checkpoint(tmp_path / "tied", tie_word_embeddings=True)
    change(directory, lambda tensors: {HEAD: tensors[EMBEDDING].clone()})
    return directory


def change(directory, make):
    path = directory / "model.safetensors"
    tensors = load_file(path)
    save_file(tensors | make(tensors), path, {"format": "pt"})


def with_one_changed(tensor, value):
    changed = tensor.clone()
    changed.view(-1)[-1] = value
    return changed


def lines_of(wmtp, *words):
    result = wmtp(*words)
    assert result.exit_code == 0, result.stderr
    return result.stdout


def refusals(wmtp, directory, *options):
    """What validate --deep and load print, which has to be the same; validate without --deep sees nothing."""
    assert wmtp("validate", directory, *options).exit_code == 0
    deep, load = (wmtp(*words, directory, *options) for words in (("validate", "--deep"), ("load",)))
    assert (deep.exit_code, load.exit_code) == (1, 1)
    deep_said, load_said = (result.stderr[result.stderr.index("error: ") :] for result in (deep, load))
    assert deep_said == load_said
    return deep_said


@pytest.mark.parametrize("value", [1e-3, -1.0, 3e38])
def test_copies_of_a_tied_tensor_that_differ_in_one_value_are_refused_as_loading_refuses_them(wmtp, tied, value):
    change(tied, lambda t: {HEAD: with_one_changed(t[EMBEDDING], value)})
    said = refusals(wmtp, tied)
    assert f"model.safetensors: '{EMBEDDING}' differs from" in said or f"'{HEAD}' differs from the tensor" in said
    assert '"tie_word_embeddings": false' in said


def test_copies_of_a_tied_tensor_that_are_equal_are_said_to_be(wmtp, tied):
    assert "1 tensors of tied parameters are equal to the ones they repeat" in lines_of(
        wmtp, "validate", "--deep", tied
    )
    assert "are equal" not in lines_of(wmtp, "validate", tied)


def test_copies_in_two_dtypes_are_compared_as_the_model_would_hold_them(wmtp, tied):
    change(tied, lambda t: {EMBEDDING: t[EMBEDDING].bfloat16().float(), HEAD: t[EMBEDDING].bfloat16()})
    assert "are equal to the ones they repeat" in lines_of(wmtp, "validate", "--deep", tied)
    change(tied, lambda t: {HEAD: with_one_changed(t[HEAD], 5)})
    assert "differs from the tensor that the model ties it to" in refusals(wmtp, tied)


def test_a_nan_equals_the_same_nan_and_no_other(tied):
    nan, other = (torch.tensor([bits], dtype=torch.int32).view(torch.float32) for bits in (0x7FC00000, 0x7FC00001))
    change(tied, lambda t: {name: with_one_changed(t[EMBEDDING], nan[0]) for name in (EMBEDDING, HEAD)})
    assert "equal" in verify_filling(prepare(tied, LoadOptions()))[0]
    change(tied, lambda t: {HEAD: with_one_changed(t[EMBEDDING], other[0])})
    with pytest.raises(IntegrityError, match="differs from the tensor"):
        verify_filling(prepare(tied, LoadOptions()))


def test_a_class_with_ties_of_its_own_is_held_to_them_once_it_may_run(wmtp, tmp_path):
    consent, _ = write_custom(tmp_path / "toy")
    agreed = ("--allow-code", f"modeling.py={consent['modeling.py']}")
    change(tmp_path / "toy", lambda t: {"shared_b": t["shared_a"] + 0.25, "head.weight": t["embedding.weight"].clone()})
    assert "'shared_b' differs from the tensor" in refusals(wmtp, tmp_path / "toy", *agreed)
    change(tmp_path / "toy", lambda t: {"shared_b": t["shared_a"].clone()})
    assert "2 tensors of tied parameters" in lines_of(wmtp, "validate", "--deep", tmp_path / "toy", *agreed)
    without = lines_of(wmtp, "validate", "--deep", tmp_path / "toy")
    assert "left to check: the parameters of ToyModel" in without


def test_a_class_that_changes_a_model_while_it_is_filled_is_refused_by_both(wmtp, tmp_path):
    meddling = "BUILT.append(self)\n        BUILT[0].counter = torch.ones(2, dtype=torch.int64)"
    hostile = MODELING.replace("# in __init__", meddling).replace("CONSTANT = 3", "CONSTANT = 3\nBUILT = []")
    consent, _ = write_custom(tmp_path / "toy", modeling=hostile)
    tensors = load_file(tmp_path / "toy/model.safetensors")
    tensors.pop("frozen")
    save_file(tensors, tmp_path / "toy/model.safetensors")
    document = json.loads((tmp_path / "toy/metadata.json").read_text())
    document["loading_strategy"]["state_dict_mapping"] = {"allow_missing": ["frozen"]}
    (tmp_path / "toy/metadata.json").write_text(json.dumps(document))
    with pytest.raises(TrustError) as refusal:
        package.load_model(tmp_path / "toy", allow_code=consent)
    with pytest.raises(TrustError) as same:
        verify_filling(prepare(tmp_path / "toy", LoadOptions(allow_code=consent)))
    assert "does not hold the weights that it was given: 'counter'" in refusal.value.problem
    assert str(same.value) == str(refusal.value)


def test_a_model_that_was_only_checked_holds_no_memory_of_its_own(tied):
    prepared = prepare(tied, LoadOptions())
    verify_filling(prepared)
    for parameter in prepared.model.parameters():
        assert parameter.untyped_storage().nbytes() == parameter.element_size()


def test_a_checkpoint_in_a_store_is_read_as_deeply(tied):
    address = "memory://tests/deep-tied"
    store = ObjectStore(parse_uri(address), cache=None)
    change(tied, lambda t: {HEAD: t[EMBEDDING] * 2})
    for path in sorted(path for path in tied.iterdir() if path.is_file()):
        store.put(path.name, path)
    assert verify_bytes(open_checkpoint(address))[-1].startswith("all values of ")
    with pytest.raises(IntegrityError, match="differs from the tensor that the model ties it to"):
        verify_filling(prepare(address, LoadOptions()))


def test_a_file_cut_short_after_its_header_was_read_is_refused_in_our_own_words(tied):
    checkpoint = open_checkpoint(tied)
    with (tied / "model.safetensors").open("r+b") as file:
        file.truncate(max(tensor.end for tensor in checkpoint.tensors) - 2)
    with pytest.raises(StorageError, match=r"model\.safetensors: .* bytes at .* expected"):
        verify_bytes(checkpoint)


def test_a_tokenizer_that_loading_would_refuse_is_refused_and_one_that_gives_way_is_said(wmtp, tied):
    settings = tied / "tokenizer_config.json"
    document = json.loads(settings.read_text())
    settings.write_text(json.dumps({**document, "tokenizer_class": "RobertaTokenizer"}))
    result = wmtp("validate", "--deep", tied)
    assert result.exit_code == 0
    assert "transformers would make other tokens than tokenizer.json" in result.stderr
    settings.write_text(json.dumps({**document, "eos_token": "two"}))
    refused = wmtp("validate", "--deep", tied)
    assert refused.exit_code == 1
    ids = build_tokenizer().encode("two  three")
    assert f"tokenizer.json makes {str(ids)[:-1]}" in refused.stderr
