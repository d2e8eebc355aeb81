import json

import pytest

from tensor_files import tensors_as_bytes, write_index
from wmtp.checkpoint.headers import read_tensors, read_tensors_and_notes, weight_files
from wmtp.errors import FormatError, NotFoundError
from wmtp.storage.opening import open_store
from wmtp.untrusted import show


def read(directory):
    return read_tensors(open_store(directory))


def shards(directory, **tensors):
    for name, held in tensors.items():
        (directory / f"{name}.safetensors").write_bytes(tensors_as_bytes({key: ("F32", [2]) for key in held}))


def index_refusal(directory):
    with pytest.raises(FormatError) as caught:
        read(directory)
    assert f"{directory}/model.safetensors.index.json: " in caught.value.problem
    return caught.value


def test_shards_are_read_through_their_index(tmp_path):
    shards(tmp_path, b=["y", "z"], a=["x"])
    write_index(tmp_path, {"x": "a.safetensors", "y": "b.safetensors", "z": "b.safetensors"}, total_size=24)
    assert [(tensor.name, tensor.file) for tensor in read(tmp_path)] == [
        ("x", "a.safetensors"),
        ("y", "b.safetensors"),
        ("z", "b.safetensors"),
    ]
    assert weight_files(open_store(tmp_path)) == ["model.safetensors.index.json", "a.safetensors", "b.safetensors"]


@pytest.mark.parametrize(
    ("shard", "fault"),
    [
        ("../other/x.safetensors", "has the part '..' in it"),
        ("/etc/x.safetensors", "is an absolute path"),
        ("C:x.safetensors", "has a colon in it"),
        ("a\\x.safetensors", "has a backslash in it"),
        (".hidden.safetensors", "has a hidden part"),
        ("a%2fx.safetensors", "has a percent sign in it"),
        ("a\x1b.safetensors", "has an unprintable character in it"),
        ("x.bin", "does not end in .safetensors"),
        ("", "is empty"),
        (3, "is not a string"),
        (None, "is not a string"),
    ],
)
def test_a_shard_name_that_could_leave_the_checkpoint_is_refused(tmp_path, shard, fault):
    write_index(tmp_path, {"layer.w": shard})
    error = index_refusal(tmp_path)
    assert "weight_map.layer.w: the shard name " in error.problem
    assert fault in error.problem
    assert "from where you trust it" in error.hint


def test_a_tensor_must_be_in_the_shard_that_the_index_names(tmp_path):
    shards(tmp_path, a=["x"], b=["y"])
    write_index(tmp_path, {"x": "b.safetensors", "y": "b.safetensors", "z": "a.safetensors"})
    error = index_refusal(tmp_path)
    assert "2 tensors are not where the index says" in error.problem
    assert error.faults == (
        "'x' is said to be in 'b.safetensors', found in 'a.safetensors'",
        "'z' is not in its shard 'a.safetensors'",
    )


def test_a_tensor_in_two_shards_or_in_none_of_the_index_is_refused(tmp_path):
    shards(tmp_path, a=["x", "extra"], b=["x", "y"])
    write_index(tmp_path, {"x": "a.safetensors", "y": "b.safetensors"})
    unnamed, twice = index_refusal(tmp_path).faults
    assert unnamed == "'extra' is not in the index, found in 'a.safetensors'"
    first, second = (f"'{shard}.safetensors' ({place(tmp_path / f'{shard}.safetensors')})" for shard in "ab")
    assert twice == f"'x' is in two shards: {first}, as the index says, and {second}"
    hint = index_refusal(tmp_path).hint
    assert f"'wmtp convert {tmp_path} NEW' writes only the tensors" in hint
    assert hint.endswith('and does not is added to its weight_map, as in "extra": "a.safetensors"')


def test_what_conversion_cannot_mend_is_not_said_to_be_mended_by_it(tmp_path):
    shards(tmp_path, a=["x", "y"], b=["x"])
    write_index(tmp_path, {"x": "a.safetensors", "y": "b.safetensors"})
    assert index_refusal(tmp_path).hint == "fetch the index and the shards again, from one version"


def place(path):
    """Where the first tensor of a file stands, which has eight bytes."""
    start = 8 + int.from_bytes(path.read_bytes()[:8], "little")
    return f"bytes {start:,} to {start + 8:,}"


def test_of_many_misplaced_tensors_twenty_are_named_and_the_rest_counted(tmp_path):
    shards(tmp_path, a=["x"])
    write_index(tmp_path, {"x": "a.safetensors", **{f"w{i:02}": "a.safetensors" for i in range(25)}})
    error = index_refusal(tmp_path)
    assert len(error.faults) == 21
    assert error.faults[-1] == "and 5 more"


def test_all_missing_shards_are_named_at_once(tmp_path):
    shards(tmp_path, a=["x"])
    write_index(tmp_path, {"x": "a.safetensors", "y": "b.safetensors", "z": "c.safetensors"})
    with pytest.raises(NotFoundError) as caught:
        read(tmp_path)
    assert "2 of 3 shards are missing: 'b.safetensors', 'c.safetensors'" in caught.value.problem
    assert caught.value.hint == "copy them beside the index, all from one version"


@pytest.mark.parametrize("total_size", [15, 17, "16", [16], 16.5, True, -1, 10**30])
def test_an_untrue_total_size_is_said_and_nothing_is_refused_for_it(tmp_path, total_size):
    shards(tmp_path, a=["x"], b=["y"])
    write_index(tmp_path, {"x": "a.safetensors", "y": "b.safetensors"}, total_size=total_size)
    tensors, (note,) = read_tensors_and_notes(open_store(tmp_path))
    assert [tensor.name for tensor in tensors] == ["x", "y"]
    said = f"model.safetensors.index.json: metadata.total_size is {show(total_size)}, the tensors have 16 bytes"
    assert note == f"{said}; nothing depends on it, as headers prove every tensor"


@pytest.mark.parametrize("metadata", [None, {}, {"total_size": None}, {"total_size": 16}, {"total_size": 16.0}])
def test_an_index_that_declares_no_other_size_needs_no_note(tmp_path, metadata):
    shards(tmp_path, a=["x"], b=["y"])
    index = {"metadata": metadata, "weight_map": {"x": "a.safetensors", "y": "b.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert read_tensors_and_notes(open_store(tmp_path))[1] == ()


@pytest.mark.parametrize(
    "index", ["{}", '{"weight_map": {}}', '{"weight_map": []}', '{"weight_map": {"w": "a.safetensors"}, "metadata": 1}']
)
def test_an_index_without_a_map_of_names_is_refused(tmp_path, index):
    (tmp_path / "model.safetensors.index.json").write_text(index)
    error = index_refusal(tmp_path)
    assert "weight_map is " in error.problem
    assert "fetch the index again" in error.hint


def test_a_tensor_named_twice_in_the_index_is_refused(tmp_path):
    index = '{"weight_map": {"w": "a.safetensors", "\\u0077": "b.safetensors"}}'
    (tmp_path / "model.safetensors.index.json").write_text(index)
    assert "has the key 'w' twice in one object" in index_refusal(tmp_path).problem


def test_a_single_file_and_an_index_together_leave_a_doubt_and_are_refused(tmp_path):
    shards(tmp_path, a=["x"], model=["x"])
    write_index(tmp_path, {"x": "a.safetensors"})
    with pytest.raises(FormatError, match=r"both model\.safetensors and model\.safetensors\.index\.json") as caught:
        read(tmp_path)
    assert "one of them is stale: remove it" in caught.value.hint


def test_an_index_of_more_shards_than_any_checkpoint_has_is_refused_before_they_are_looked_for(tmp_path):
    write_index(tmp_path, {f"w{number}": f"{number}.safetensors" for number in range(50_001)})
    error = index_refusal(tmp_path)
    assert "weight_map names more than 50,000 shards" in error.problem
    assert "max_shard_size" in error.hint
