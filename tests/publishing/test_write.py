import json

import pytest
import torch
from safetensors import safe_open

import wmtp
from checkpoints import metadata_document
from tiny_models import tiny_mtp, tokens
from wmtp.checkpoint.headers import read_tensors
from wmtp.errors import CheckpointError
from wmtp.metadata.schema import ModelMetadata
from wmtp.publishing import write
from wmtp.publishing.write import write_model_directory
from wmtp.storage.opening import open_store

METADATA = ModelMetadata.model_validate(
    metadata_document(
        {"state_dict_mapping": {"remove_prefix": "old."}, "required_files": ["gone.json"]},
        files=[{"path": "gone.json", "size": 1, "sha256": "0" * 64}],
    )
)


def write_tensors(directory, state_dict, **more):
    return write_model_directory(directory, state_dict=state_dict, config={}, metadata=METADATA, **more)


def stored(directory):
    with safe_open(directory / "model.safetensors", framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118


def test_a_tensor_with_two_names_is_stored_once_under_the_first(tmp_path):
    shared = torch.randn(3, 2)
    write_tensors(tmp_path, {"b.weight": shared, "a.weight": shared, "c.weight": shared.clone()})
    tensors, note = stored(tmp_path)
    assert sorted(tensors) == ["b.weight", "c.weight"]
    assert torch.equal(tensors["b.weight"], shared)
    assert note == {"format": "pt"}


def test_tensors_that_lie_in_one_storage_are_stored_each(tmp_path):
    mapped = torch.arange(12.0)
    views = {"first": mapped[:6].view(2, 3), "second": mapped[6:].view(2, 3), "turned": mapped[:6].view(2, 3).T}
    write_tensors(tmp_path, views)
    tensors, _ = stored(tmp_path)
    assert sorted(tensors) == ["first", "second", "turned"]
    assert all(torch.equal(tensors[name], view) for name, view in views.items())


def test_large_models_are_sharded_and_load_again(tmp_path, monkeypatch):
    monkeypatch.setattr(write, "MAX_SHARD_BYTES", 20_000)
    model, ids = tiny_mtp(tie_word_embeddings=True), tokens(1, 8)
    config = json.loads(model.config.to_json_string())
    written = write_model_directory(tmp_path, state_dict=model.state_dict(), config=config, metadata=METADATA)
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    shards = sorted(path.name for path in tmp_path.glob("*.safetensors"))
    assert len(shards) > 2
    assert shards[0] == f"model-00001-of-{len(shards):05d}.safetensors"
    assert all((tmp_path / shard).stat().st_size < 25_000 for shard in shards)
    assert index["metadata"]["total_size"] == sum(t.num_bytes for t in read_tensors(open_store(tmp_path)))
    assert written.loading_strategy.required_files == ["config.json", "model.safetensors.index.json"]
    with torch.no_grad():
        assert torch.equal(wmtp.load_model(tmp_path)(ids).logits, model(ids).logits)


def test_metadata_says_what_was_written_and_nothing_of_older_files(tmp_path):
    (tmp_path / "elsewhere").write_bytes(b"{}")
    weights = {"w": torch.zeros(9, dtype=torch.bfloat16), "norm": torch.zeros(3)}
    written = write_tensors(tmp_path, weights, extra_files={"tokenizer.json": tmp_path / "elsewhere", "a/b.txt": b"x"})
    assert written == wmtp.load_metadata(tmp_path)
    assert written.loading_strategy.required_files == ["config.json", "model.safetensors", "tokenizer.json", "a/b.txt"]
    assert written.loading_strategy.state_dict_mapping.remove_prefix is None
    assert written.files is None
    assert written.dtype == "bfloat16"
    assert json.loads((tmp_path / "config.json").read_text()) == {"dtype": "bfloat16"}
    assert (tmp_path / "a" / "b.txt").read_bytes() == b"x"


@pytest.mark.parametrize("name", ["../outside", "/etc/x", "metadata.json", "model.safetensors"])
def test_a_file_name_that_may_not_be_used_is_refused(tmp_path, name):
    with pytest.raises(CheckpointError, match="the file name"):
        write_tensors(tmp_path, {"w": torch.zeros(1)}, extra_files={name: b""})
    assert list(tmp_path.iterdir()) == []


def test_a_tensor_without_values_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="'w' is on the meta device"):
        write_tensors(tmp_path, {"w": torch.zeros(1, device="meta")})


def test_weights_may_be_read_by_whom_the_umask_lets(tmp_path):
    write_tensors(tmp_path, {"w": torch.zeros(2)})
    modes = {path.name: path.stat().st_mode for path in tmp_path.iterdir()}
    assert modes["model.safetensors"] == modes["config.json"]


LAID_OUT = torch.arange(24.0)


@pytest.mark.parametrize(
    "pair",
    [
        (LAID_OUT[:12], LAID_OUT[6:18]),  # rows in common
        (LAID_OUT[:12], LAID_OUT[4:8]),  # one within the other
        (LAID_OUT[:12], LAID_OUT[:12].view(3, 4)),  # the same in another shape
        (LAID_OUT[:12], LAID_OUT[:12].view(torch.int32)),  # the same bits as other numbers
        (LAID_OUT.view(4, 6)[:, :4], LAID_OUT.view(4, 6)[:, 3:]),  # a column in common
        (LAID_OUT[2:3].expand(5), LAID_OUT[:4]),  # one element, repeated
    ],
)
def test_tensors_that_share_some_memory_are_refused_by_name(tmp_path, pair):
    with pytest.raises(CheckpointError, match="share memory without being the same tensor") as refusal:
        write_tensors(tmp_path, {"whole.weight": pair[0], "part.weight": pair[1], "other": torch.zeros(2)})
    assert "'whole.weight'" in refusal.value.problem
    assert "'part.weight'" in refusal.value.problem
    assert ".clone()" in refusal.value.hint
    assert list(tmp_path.iterdir()) == []


def test_columns_of_one_matrix_are_stored_each(tmp_path):
    matrix = LAID_OUT.view(4, 6)
    views = {"left": matrix[:, :3], "right": matrix[:, 3:], "odd": torch.arange(8)[1::2], "none": LAID_OUT[3:3]}
    write_tensors(tmp_path, views)
    tensors, _ = stored(tmp_path)
    assert all(torch.equal(tensors[name], view) for name, view in views.items())


def test_every_pair_that_shares_memory_is_named(tmp_path):
    views = {"a": LAID_OUT[:4], "b": LAID_OUT[3:6], "c": LAID_OUT[5:8], "a.again": LAID_OUT[:4]}
    with pytest.raises(CheckpointError) as refusal:
        write_tensors(tmp_path, views)
    assert refusal.value.faults == ("'a' and 'b'", "'b' and 'c'")
