"""Shards that hold more than their index names, written again with what it names."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from checkpoints import llama_metadata, write_llama_checkpoint
from hostile_pickles import digests
from wmtp import load_model
from wmtp.publishing.publish import verify_published

INDEX = "model.safetensors.index.json"
FIRST, SECOND = "model-1.safetensors", "deep/model-2.safetensors"
NORM, HEAD = "model.norm.weight", "lm_head.weight"


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    directory = write_llama_checkpoint(tmp_path_factory.mktemp("sharded") / "llama")
    tensors = load_file(directory / "model.safetensors")
    (directory / "model.safetensors").unlink()
    (directory / "deep").mkdir()
    middle = sorted(tensors)[len(tensors) // 2]
    shards = {name: FIRST if name < middle else SECOND for name in tensors}
    for shard in (FIRST, SECOND):
        save_file({n: t for n, t in tensors.items() if shards[n] == shard}, directory / shard, {"format": "pt"})
    size = sum(tensor.nbytes for tensor in tensors.values())
    (directory / INDEX).write_text(json.dumps({"metadata": {"total_size": size}, "weight_map": shards}))
    document = llama_metadata(files=[{"path": FIRST, "size": 1, "sha256": "0" * 64}])
    document["loading_strategy"]["required_files"] = ["config.json", INDEX]
    (directory / "metadata.json").write_text(json.dumps(document))
    return directory


@pytest.fixture
def sharded(written, tmp_path):
    """A llama in two shards, which the test may change."""
    return shutil.copytree(written, tmp_path / "sharded")


def add(directory, shard, **tensors):
    held = load_file(directory / shard)
    save_file(held | {name.replace("__", "."): tensor for name, tensor in tensors.items()}, directory / shard)


def test_a_tensor_in_two_shards_is_refused_with_a_step_that_mends_it(wmtp, sharded, tmp_path):
    expected = AutoModelForCausalLM.from_pretrained(sharded).state_dict()
    add(sharded, FIRST, model__norm__weight=torch.full((32,), 7.0))
    before = digests(sharded)
    refused = wmtp("load", sharded)
    assert f"'{NORM}' is in two shards: '{SECOND}' (bytes " in refused.stderr
    assert f"'wmtp convert {sharded} NEW'" in refused.stderr
    result = wmtp("convert", sharded, tmp_path / "made")
    assert result.exit_code == 0, result.stderr
    assert f"not written: {NORM} in {FIRST}: DIFFERS from that one" in result.stdout
    assert digests(sharded) == before
    loaded = load_model(tmp_path / "made").state_dict()
    assert loaded.keys() == expected.keys()
    assert all(torch.equal(loaded[name], values) for name, values in expected.items())
    assert wmtp("validate", tmp_path / "made", "--deep").exit_code == 0
    verify_published(tmp_path / "made")


def test_copies_that_are_equal_bit_for_bit_are_said_to_be(wmtp, sharded, tmp_path):
    nan = torch.full((32,), float("nan"))
    add(sharded, SECOND, model__norm__weight=nan)
    add(sharded, FIRST, model__norm__weight=nan)
    report = json.loads(wmtp("convert", sharded, tmp_path / "made", "--json").stdout)
    assert report["left"] == [{"name": NORM, "file": FIRST, "equals_named": True}]
    assert torch.equal(load_file(tmp_path / "made" / SECOND)[NORM].isnan(), nan.isnan())


def test_a_copy_of_another_dtype_or_shape_is_no_equal_one(wmtp, sharded, tmp_path):
    add(sharded, FIRST, model__norm__weight=torch.zeros(4, 8), extra=torch.ones(3))
    report = json.loads(wmtp("convert", sharded, tmp_path / "made", "--json").stdout)
    assert report["left"] == [
        {"name": "extra", "file": FIRST, "equals_named": None},
        {"name": NORM, "file": FIRST, "equals_named": False},
    ]


def test_a_wrong_total_size_is_said_by_every_command_and_mended_by_conversion(wmtp, sharded, tmp_path):
    index = json.loads((sharded / INDEX).read_text())
    true_size = index["metadata"]["total_size"]
    on_disk = sum((sharded / shard).stat().st_size for shard in (FIRST, SECOND))
    index["metadata"]["total_size"] = on_disk
    (sharded / INDEX).write_text(json.dumps(index))
    note = f"metadata.total_size is {on_disk}, the tensors have {true_size} bytes"
    for words in (("load", sharded), ("validate", sharded)):
        result = wmtp(*words)
        assert result.exit_code == 0
        assert note in result.stdout
    assert note in json.loads(wmtp("load", sharded, "--json").stdout)["notes"][0]
    assert f"mended: {INDEX}: {note}" in wmtp("convert", sharded, tmp_path / "made").stdout
    assert note not in wmtp("load", tmp_path / "made").stdout


def test_an_index_that_names_what_no_shard_holds_is_not_repaired(wmtp, sharded, tmp_path):
    add(sharded, FIRST, model__norm__weight=torch.zeros(32))
    index = json.loads((sharded / INDEX).read_text())
    index["weight_map"]["absent"] = FIRST
    (sharded / INDEX).write_text(json.dumps(index))
    refused = wmtp("convert", sharded, tmp_path / "made")
    assert refused.exit_code == 1
    assert f"'absent' is not in its shard '{FIRST}'" in refused.stderr
    assert "NEW" not in refused.stderr
    assert not (tmp_path / "made").exists()


def test_sound_shards_have_nothing_to_be_mended(wmtp, sharded, tmp_path):
    refused = wmtp("convert", sharded, tmp_path / "made")
    assert refused.exit_code == 1
    assert "nothing in them is to be mended" in refused.stderr


def test_repair_leaves_nothing_behind_when_it_fails(wmtp, sharded):
    add(sharded, FIRST, model__norm__weight=torch.zeros(32))
    refused = wmtp("convert", sharded, sharded / "made")
    assert "inside the source, which is left as it is" in refused.stderr
    assert not (sharded / "made").exists()
