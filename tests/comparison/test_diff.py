"""Two checkpoints side by side: what differs, by how much, and what does not count as a difference."""

import json
import math

import pytest
import torch
from safetensors.torch import save_file

from checkpoints import metadata_document
from tensor_files import safetensors_bytes, tensor_entry, write_index
from wmtp.comparison import values
from wmtp.comparison.diff import diff_checkpoints
from wmtp.errors import CheckpointError, FormatError, NotFoundError, StorageError


@pytest.fixture
def write(tmp_path):
    """Write a checkpoint of the given tensors; without metadata it is a plain transformers directory."""

    def write_one(name, tensors, *, metadata=None, config=None):
        directory = tmp_path / name
        directory.mkdir()
        save_file(tensors, directory / "model.safetensors")
        (directory / "config.json").write_text(json.dumps(config or {"model_type": "llama"}))
        if metadata is not None:
            (directory / "metadata.json").write_text(json.dumps(metadata))
        return directory

    return write_one


def only(found):
    assert len(found) == 1, found
    return found[0]


def test_two_copies_are_equal_and_no_value_is_measured(write):
    tensors = {"w": torch.randn(3, 4), "n": torch.tensor([math.nan]), "empty": torch.zeros(0, 4)}
    a, b = (write(name, tensors, metadata=metadata_document()) for name in "ab")
    found = diff_checkpoints(a, b)
    assert (found.is_equal, found.summary(), found.overall) == (True, ["equal"], None)
    assert found.to_dict()["num_common"] == 3


def test_values_that_differ_are_counted_and_measured(write):
    base = torch.tensor([3.0, 4.0, 0.0, 0.0])
    a = write("a", {"w": base, "same": base.clone()})
    b = write("b", {"w": base + torch.tensor([0, 0, 0.5, 0]), "same": base})
    tensor = only(diff_checkpoints(a, b).tensors)
    assert (tensor.name, tensor.kind, tensor.values.num_different) == ("w", "values", 1)
    assert (tensor.values.max_abs, tensor.values.relative_l2) == (0.5, 0.1)
    assert str(tensor) == "w, F32 [4]: 1 of 4 values differ, by at most 0.5, relative L2 0.1"


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64, torch.float8_e4m3fn])
def test_figures_agree_with_a_direct_computation_over_several_pieces(write, monkeypatch, dtype):
    monkeypatch.setattr(values, "_PIECE_VALUES", 7)
    monkeypatch.setattr(values, "_PIECE_BYTES", 16)
    torch.manual_seed(0)
    one = torch.randn(5, 10).to(dtype)
    two = (one.double() + torch.randn(5, 10).double() * 0.1).to(dtype)
    measured = only(diff_checkpoints(write("a", {"w": one}), write("b", {"w": two})).tensors).values
    change = one.double() - two.double()
    assert (measured.num_values, measured.num_different) == (50, int((change != 0).sum()))
    assert measured.max_abs == float(change.abs().max())
    assert measured.relative_l2 == pytest.approx(float(change.norm() / one.double().norm()), rel=1e-12)


def test_the_most_different_stand_first_and_the_rest_is_counted(write):
    base = {f"w{number:02}": torch.ones(4) for number in range(25)}
    changed = {name: tensor + int(name[1:]) * 0.01 for name, tensor in base.items()}
    found = diff_checkpoints(write("a", base), write("b", changed))
    assert [tensor.name for tensor in found.tensors] == sorted(base, reverse=True)[:-1]
    lines = found.summary()
    assert lines[0] == "tensors: 24 of 25 differ in values"
    assert lines[2].startswith("  w24, F32 [4]: 4 of 4 values differ, by at most 0.24, relative L2 0.24")
    assert lines[22] == "  and 4 more"
    assert lines[23].startswith("all of them that were measured: 96 of 96 values differ, by at most 0.24, relative L2")


def test_nan_in_both_is_no_difference_and_nan_or_infinity_in_one_is(write):
    nan, infinity = math.nan, math.inf
    a = write("a", {"w": torch.tensor([nan, nan, infinity, infinity, 1.0, 3.0])})
    b = write("b", {"w": torch.tensor([nan, 1.0, infinity, 0.0, 2.0, 3.0])})
    found = diff_checkpoints(a, b)
    measured = only(found.tensors).values
    assert (measured.num_different, measured.num_nan_in_both, measured.num_not_finite) == (3, 1, 2)
    assert (measured.max_abs, measured.norm_a) == (1.0, pytest.approx(math.sqrt(10)))
    assert "3 of 6 values differ, 2 of them with NaN or infinity, by at most 1" in found.summary()[2]
    json.dumps(found.to_dict(), allow_nan=False)


def test_a_relative_difference_to_nothing_is_none_and_still_json(write):
    found = diff_checkpoints(write("a", {"w": torch.zeros(2)}), write("b", {"w": torch.ones(2)}))
    assert only(found.tensors).values.relative_l2 is None
    assert found.summary()[2].endswith("relative L2 not to be had")
    assert json.loads(json.dumps(found.to_dict(), allow_nan=False))["tensors"][0]["values"]["relative_l2"] is None


def test_equal_values_with_other_bits_are_told_as_such(write):
    found = diff_checkpoints(write("a", {"w": torch.tensor([0.0])}), write("b", {"w": torch.tensor([-0.0])}))
    assert (only(found.tensors).kind, found.is_equal) == ("bits", False)
    assert found.summary()[2] == "  w, F32 [1]: the values are the same"


def test_another_dtype_is_a_difference_and_values_are_compared_all_the_same(write):
    tensor = torch.tensor([1.0, 1.001])
    found = diff_checkpoints(write("a", {"w": tensor}), write("b", {"w": tensor.bfloat16()}))
    assert (only(found.tensors).kind, only(found.tensors).values.num_different) == ("dtype", 1)
    assert found.summary()[2].startswith("  w, F32 [2] in A, BF16 [2] in B: 1 of 2 values differ")
    assert found.notes == ("values stored in different dtypes were compared in float64",)


def test_whole_numbers_are_compared_exactly(write):
    large = 2**60
    a = write(
        "a", {"i": torch.tensor([large, 5]), "b": torch.tensor([True, False]), "u": torch.tensor([9]).to(torch.uint64)}
    )
    b = write(
        "b",
        {"i": torch.tensor([large + 1, 5]), "b": torch.tensor([True, True]), "u": torch.tensor([8]).to(torch.uint64)},
    )
    found = {tensor.name: tensor.values for tensor in diff_checkpoints(a, b).tensors}
    assert {name: measured.num_different for name, measured in found.items()} == {"i": 1, "b": 1, "u": 1}
    assert (found["b"].max_abs, found["u"].max_abs) == (1.0, 1.0)


def test_tensors_of_one_side_and_other_shapes_are_named_and_not_measured(write):
    a = write("a", {"w": torch.zeros(2, 3), "old": torch.ones(1), "empty": torch.zeros(0, 3)})
    b = write("b", {"w": torch.zeros(3, 2), "new": torch.ones(2), "empty": torch.zeros(3, 0)})
    found = diff_checkpoints(a, b)
    kinds = {tensor.name: tensor.kind for tensor in found.tensors}
    assert kinds == {"w": "shape", "old": "only in A", "new": "only in B", "empty": "shape"}
    assert "  w, F32 [2, 3] in A, F32 [3, 2] in B" in found.summary()
    assert "  old: only in A, F32 [1]" in found.summary()
    assert found.overall is None


def test_shards_are_no_difference_of_the_model(write):
    tensors = {"u": torch.arange(3.0), "w": torch.arange(4)}
    a, b = write("a", tensors), write("b", tensors)
    (b / "model.safetensors").unlink()
    for name, tensor in tensors.items():
        save_file({name: tensor}, b / f"{name}.safetensors")
    write_index(b, {name: f"{name}.safetensors" for name in tensors})
    found = diff_checkpoints(a, b)
    assert found.is_equal
    assert found.notes == ("the tensors are in 1 files in A, 2 in B: the model is the same for that",)


def test_a_tied_weight_that_was_saved_twice_is_named_a_copy(write):
    embedding = torch.randn(4, 2)
    a = write("a", {"embed": embedding, "lm_head": embedding.clone()})
    found = diff_checkpoints(a, write("b", {"embed": embedding}))
    assert (only(found.tensors).name, only(found.tensors).kind) == ("lm_head", "only in A")
    assert found.notes == ("lm_head, only in A, is a copy of embed there",)


def test_where_no_stored_name_agrees_the_mapped_ones_are_compared(write):
    document = metadata_document({"state_dict_mapping": {"remove_prefix": "module."}})
    a = write("a", {"module.w": torch.ones(2)}, metadata=document)
    b = write("b", {"w": torch.tensor([1.0, 2.0])}, metadata=metadata_document())
    found = diff_checkpoints(a, b)
    assert only(found.tensors).name == "w"
    assert only(found.to_dict()["tensors"])["a"]["name"] == "module.w"
    assert found.notes[-1].endswith("compared by the names that state_dict_mapping gives")


def test_a_mapping_that_cannot_be_applied_is_told_and_stored_names_stay(write):
    document = metadata_document({"state_dict_mapping": {"remove_prefix": "nothing."}})
    a = write("a", {"v": torch.ones(2)}, metadata=document)
    found = diff_checkpoints(a, write("b", {"w": torch.ones(2)}))
    assert [tensor.kind for tensor in found.tensors] == ["only in A", "only in B"]
    assert "state_dict_mapping does not fit the tensors" in found.notes[0]


def test_fields_are_named_by_dotted_path_with_both_values(write):
    tensors = {"w": torch.ones(1)}
    a = write("a", tensors, metadata=metadata_document(horizon=4), config={"rope": {"type": "a"}, "sizes": [1, 2]})
    b = write("b", tensors, metadata=metadata_document(n_heads=4), config={"sizes": [1, True], "rope": {"type": "b"}})
    found = diff_checkpoints(a, b)
    assert found.verdict == "same tensors, other metadata; fields that differ: 4"
    assert [str(field) for field in found.fields] == [
        "horizon: only in A: 4",
        "n_heads: only in B: 4",
        "rope.type: 'a' in A, 'b' in B",
        "sizes.1: 2 in A, true in B",
    ]
    assert found.to_dict()["fields"][0] == {"file": "metadata.json", "path": "horizon", "a": 4}


def test_other_files_are_compared_by_their_bytes_and_json_layout_does_not_count(write):
    a, b = (write(name, {"w": torch.ones(1)}) for name in "ab")
    for directory, text in ((a, "one"), (b, "two")):
        (directory / "tokenizer.json").write_text(text)
        (directory / "same.txt").write_text("same")
    (a / "README.md").write_text("x" * 1234)
    (b / "config.json").write_text(json.dumps({"model_type": "llama"}, indent=4))
    found = diff_checkpoints(a, b)
    assert found.summary() == [
        "same tensors, other files; files that differ: 2",
        "files",
        "  README.md: only in A, 1,234 bytes",
        "  tokenizer.json: other bytes, 3 in both",
    ]


def test_headers_alone_read_no_value(write):
    a, b = write("a", {"w": torch.zeros(2)}), write("b", {"w": torch.ones(2)})
    found = diff_checkpoints(a, b, values=False)
    assert (found.is_equal, found.verdict) == (True, "equal; values were not read")
    assert not found.to_dict()["values_read"]


def test_foreign_text_is_escaped(tmp_path, write):
    directories = write("a", {"w": torch.ones(1)}), tmp_path / "b"
    directories[1].mkdir()
    entries = {"é'\\": tensor_entry("F32", [1], 0, 4)}
    (directories[1] / "model.safetensors").write_bytes(safetensors_bytes(entries, b"\0" * 4))
    (directories[1] / "config.json").write_text('{"a\\u001b[2J\\n": "\\u202e"}')
    for directory in directories:
        (directory / "x\x1b.txt").write_text("x")
    text = "\n".join(diff_checkpoints(*directories).summary())
    assert text.isascii()
    assert "\x1b" not in text
    assert "a\\x1b[2J\\n: only in B: '\\u202e'" in text
    assert "x\\x1b.txt has an unprintable character in it, and was not compared" in text


def test_what_cannot_be_read_is_refused_with_its_own_error(tmp_path, write):
    a, b = (write(name, {"w": torch.ones(1)}) for name in "ab")
    with pytest.raises(NotFoundError, match="no such directory"):
        diff_checkpoints(a, tmp_path / "nothing")
    (b / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"b/config\.json: is not JSON"):
        diff_checkpoints(a, b)
    (b / "config.json").write_text("{}")
    (b / "model.safetensors").write_bytes(b"PK")
    with pytest.raises(FormatError, match="zip archive"):
        diff_checkpoints(a, b)
    (b / "model.safetensors").unlink()
    (b / "model.safetensors").symlink_to(a / "model.safetensors")
    with pytest.raises(StorageError, match="a symbolic link to"):
        diff_checkpoints(a, b)
    assert diff_checkpoints(a, b, allow_symlinks=True).tensors == ()


def test_the_order_of_required_files_is_no_difference_and_another_name_is(tmp_path, write):
    a, b = (write(name, {"w": torch.ones(1)}) for name in "ab")
    for place, names in ((a, ["config.json", "x.json"]), (b, ["x.json", "config.json"])):
        (place / "metadata.json").write_text(json.dumps({"loading_strategy": {"required_files": names}}))
    assert diff_checkpoints(a, b).fields == ()
    (b / "metadata.json").write_text('{"loading_strategy": {"required_files": ["config.json", "y.json"]}}')
    assert [found.path for found in diff_checkpoints(a, b).fields] == ["loading_strategy.required_files.1"]
