"""Which files are the pickled weights of a directory; none is opened."""

import json

import pytest

from wmtp.authoring.pickles.sources import PickledWeights, check_beginnings, files_to_copy, find_weights, merge_sizes
from wmtp.errors import CheckpointError, FormatError, NotFoundError
from wmtp.storage.opening import open_store

INDEX = "pytorch_model.bin.index.json"


@pytest.fixture
def store_of(tmp_path):
    """A store of files by name: text, or values for a JSON file."""

    def make(**files):
        for name, content in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content if isinstance(content, str) else json.dumps(content))
        return open_store(tmp_path)

    return make


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "last.ckpt", "consolidated.00.pth"])
def test_a_lone_file_is_the_weights_whatever_trainers_left_beside_it(store_of, name):
    beside = dict.fromkeys(("training_args.bin", "optimizer.pt", "rng_state_0.pth", "config.json", "old/model.pt"), "")
    weights = find_weights(store_of(**beside, **{name: ""}))
    assert (weights.files, weights.parallel) == ((name,), False)


def test_two_files_are_not_guessed_between(store_of):
    with pytest.raises(CheckpointError, match=r"not clear which are the weights: 'a\.pt', 'pytorch_model\.bin'"):
        find_weights(store_of(**{"pytorch_model.bin": "", "a.pt": ""}))


def test_no_weights_at_all(store_of):
    with pytest.raises(NotFoundError, match=r"no weights in \.bin, \.pt, \.pth, \.ckpt"):
        find_weights(store_of(**{"training_args.bin": "", "original/model.bin": ""}))


def test_the_index_says_what_is_in_each_shard(store_of):
    weights = find_weights(
        store_of(**{INDEX: {"weight_map": {"x": "b.bin", "y": "a.bin", "z": "b.bin"}}, "a.bin": "", "b.bin": ""})
    )
    assert weights.files == ("a.bin", "b.bin")
    assert weights.expected == {"a.bin": ("y",), "b.bin": ("x", "z")}


@pytest.mark.parametrize(
    ("shard", "fault"),
    [
        ("../outside.bin", r"'\.\./outside\.bin' has the part '\.\.' in it"),
        ("/etc/passwd", "is an absolute path"),
        ("a.safetensors", r"ends in none of \.bin, \.pt"),
        (["a.bin"], "is not a string"),
        (None, "is not a string"),
    ],
)
def test_a_hostile_shard_name_is_refused(store_of, shard, fault):
    with pytest.raises(FormatError, match=f"weight_map.x: the shard name .*{fault}"):
        find_weights(store_of(**{INDEX: {"weight_map": {"x": shard}}}))


@pytest.mark.parametrize(
    "text", ["[]", "{}", '{"weight_map": []}', '{"weight_map": {"x": "a.bin", "x": "b.bin"}}', "{"]
)
def test_a_malformed_index_is_refused(store_of, text):
    with pytest.raises(FormatError, match=r"pytorch_model\.bin\.index\.json: "):
        find_weights(store_of(**{INDEX: text, "a.bin": ""}))


def test_missing_and_unnamed_shards_are_refused_by_name(store_of):
    index = {"weight_map": {"x": "a.bin", "y": "b.bin"}}
    with pytest.raises(NotFoundError, match=r"shards are missing: 'b\.bin'"):
        find_weights(store_of(**{INDEX: index, "a.bin": ""}))
    with pytest.raises(CheckpointError, match=r"does not name these weights: 'c\.bin'"):
        find_weights(store_of(**{"b.bin": "", "c.bin": ""}))


def test_a_gap_between_parallel_shards_is_refused(store_of):
    with pytest.raises(NotFoundError, match=r"shards are missing: 'consolidated\.01\.pth'"):
        find_weights(store_of(**{"consolidated.00.pth": "", "consolidated.02.pth": ""}))


@pytest.mark.parametrize(
    ("start", "said"),
    [
        ("version https://git-lfs.github.com/spec/v1\n", "this is a Git LFS pointer"),
        ("<html>", "this is an HTML or XML page"),
        ("\0" * 100, "this is filled with zeros"),
        ("GGUF", "this is a GGUF file"),
        ("", "begins with b''"),
        ("\x1b[31m", r"begins with b'\\x1b\[31m'"),
    ],
)
def test_a_file_that_is_something_else_is_named(store_of, start, said):
    store = store_of(**{"model.pt": start})
    with pytest.raises(FormatError, match=f"model.pt: {said}.*, neither a zip archive nor a pickle of protocol 2"):
        check_beginnings(store, find_weights(store))


def test_small_files_go_along_and_pickles_and_what_is_true_of_the_old_files_do_not(store_of):
    small = ["LICENSE", "README.md", "config.json", "modeling.py", "params.json", "tokenizer.model", "sub/merges.txt"]
    rest = [
        "model.pt",
        "optimizer.pt",
        "metadata.json",
        "manifest.json",
        "receipt.json",
        "x.pkl",
        "LICENSE.pt",
        "x.npy",
    ]
    store = store_of(**dict.fromkeys([*small, *rest, ".hidden.json", "tf.index.json"], ""))
    assert files_to_copy(store, PickledWeights(("model.pt",)), ()) == sorted(small)


def test_a_file_that_metadata_requires_goes_along_unless_it_is_a_pickle(store_of):
    store = store_of(**{"model.pt": "", "x.npy": "", "extra.pkl": ""})
    assert files_to_copy(store, PickledWeights(("model.pt",)), ["model.pt", "x.npy"]) == ["x.npy"]
    with pytest.raises(CheckpointError, match=r"metadata.json requires 'extra\.pkl', which is no part of the weights"):
        files_to_copy(store, PickledWeights(("model.pt",)), ["extra.pkl"])


def test_params_say_the_sizes_that_they_know(store_of):
    store = store_of(**{"params.json": {"dim": 8, "vocab_size": -1, "n_heads": True, "n_kv_heads": 2.0, "x": 1}})
    assert merge_sizes(store) == {"dim": 8}
    with pytest.raises(FormatError, match="dim is '8'"):
        merge_sizes(store_of(**{"params.json": {"dim": "8"}}))


@pytest.mark.parametrize("name", ["model.safetensors", "metadata.json", "manifest.json", "parts"])
def test_a_directory_with_the_name_of_a_file_that_is_written_does_not_go_along(tmp_path, name):
    (tmp_path / name).mkdir()
    (tmp_path / name / "notes.txt").write_text("x")
    (tmp_path / "pytorch_model.bin").write_bytes(b"PK\x03\x04")
    store = open_store(tmp_path)
    assert files_to_copy(store, find_weights(store), []) == []
