import os

import pytest

from checkpoints import metadata_document, write_files
from tensor_files import tensors_as_bytes
from wmtp.checkpoint.contents import open_checkpoint
from wmtp.checkpoint.headers import read_tensors
from wmtp.errors import CheckpointError, IncompatibleModelError, MetadataError, NotFoundError, StorageError
from wmtp.storage.opening import open_store


def requiring(*names, **strategy):
    return metadata_document({"required_files": list(names), **strategy})


def test_a_checkpoint_is_opened_without_reading_a_weight(tmp_path):
    checkpoint = open_checkpoint(write_files(tmp_path))
    assert checkpoint.where == str(tmp_path)
    assert checkpoint.config == {"model_type": "llama"}
    assert checkpoint.metadata.base_architecture == "llama"
    assert [tensor.name for tensor in checkpoint.tensors] == ["w"]


def test_all_missing_required_files_are_named_at_once(tmp_path):
    names = ["metadata.json", "config.json", "tokenizer.json", "modeling.py", "extra/blocks.py"]
    write_files(tmp_path, metadata=requiring(*names, custom_module_file="own.py"))
    with pytest.raises(NotFoundError) as caught:
        open_checkpoint(tmp_path)
    assert "4 required files are missing: 'tokenizer.json', 'modeling.py', 'extra/blocks.py', 'own.py'" in (
        caught.value.problem
    )
    assert "loading_strategy.required_files in metadata.json" in caught.value.hint


def test_of_many_missing_files_twenty_are_named_and_the_rest_counted(tmp_path):
    write_files(tmp_path, metadata=requiring(*(f"{i}.json" for i in range(25))))
    with pytest.raises(NotFoundError, match=r"25 required files are missing: '0\.json', .*'19\.json', and 5 more"):
        open_checkpoint(tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_required_file_that_is_a_pipe_or_a_directory_is_refused_without_waiting(tmp_path):
    write_files(tmp_path, metadata=requiring("tokenizer.json"))
    os.mkfifo(tmp_path / "tokenizer.json")
    with pytest.raises(StorageError, match=r"tokenizer\.json: not a regular file"):
        open_checkpoint(tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    (tmp_path / "tokenizer.json").mkdir()
    with pytest.raises(StorageError, match=r"tokenizer\.json: not a regular file"):
        open_checkpoint(tmp_path)


def test_an_algorithm_that_the_model_does_not_declare_is_refused_before_anything_else_is_read(tmp_path):
    write_files(tmp_path, metadata=requiring("absent.json"))
    with pytest.raises(IncompatibleModelError) as caught:
        open_checkpoint(tmp_path, algorithm="critic-wmtp")
    assert "algorithm_compatibility lacks 'critic-wmtp', it has: baseline-mtp" in caught.value.problem
    with pytest.raises(IncompatibleModelError, match="lacks 'baseline_mtp'") as caught:
        open_checkpoint(tmp_path, algorithm="baseline_mtp")
    assert "did you mean 'baseline-mtp'?" in caught.value.hint


def test_a_declaration_that_config_contradicts_is_refused(tmp_path):
    write_files(tmp_path, config={"model_type": "mistral"})
    with pytest.raises(MetadataError, match=r"base_architecture is 'llama', but config\.json has model_type 'mistral'"):
        open_checkpoint(tmp_path)


def test_weights_that_are_not_safetensors_are_refused(tmp_path):
    (write_files(tmp_path) / "model.safetensors").write_bytes(b"PK\x03\x04" + b"x" * 100)
    with pytest.raises(CheckpointError, match=r"model\.safetensors: this is a zip archive"):
        open_checkpoint(tmp_path)


def test_a_checkpoint_in_a_hugging_face_cache_is_opened_through_its_links(tmp_path):
    blobs, snapshot = tmp_path / "models--a--b" / "blobs", tmp_path / "models--a--b" / "snapshots" / "1f2e"
    snapshot.mkdir(parents=True)
    write_files(blobs)
    for blob in blobs.iterdir():
        (snapshot / blob.name).symlink_to(f"../../blobs/{blob.name}")
    assert [tensor.name for tensor in open_checkpoint(snapshot).tensors] == ["w"]


def test_links_out_of_the_checkpoint_are_followed_only_when_asked(tmp_path):
    elsewhere, directory = write_files(tmp_path / "elsewhere"), write_files(tmp_path / "checkpoint")
    (directory / "config.json").unlink()
    (directory / "config.json").symlink_to(elsewhere / "config.json")
    with pytest.raises(StorageError, match=r"config\.json: a symbolic link to '.*elsewhere/config\.json', outside"):
        open_checkpoint(directory)
    assert open_checkpoint(directory, allow_symlinks=True).config == {"model_type": "llama"}


def test_a_link_is_followed_inside_a_hugging_face_cache_entry_and_nowhere_else(tmp_path):
    snapshot, blobs, elsewhere = (tmp_path / name for name in ("models--a/snapshots/1f", "models--a/blobs", "other"))
    for directory in (snapshot, blobs, elsewhere):
        directory.mkdir(parents=True)
        (directory / "4c").write_bytes(tensors_as_bytes({"w": ("F32", [2])}))
    link = snapshot / "model.safetensors"
    for target in ("../../blobs/4c", "4c"):
        link.symlink_to(target)
        assert [tensor.name for tensor in read_tensors(open_store(snapshot))] == ["w"]
        link.unlink()
    link.symlink_to("../../../other/4c")
    with pytest.raises(StorageError, match=r"a symbolic link to .*other/4c', outside the checkpoint") as caught:
        read_tensors(open_store(snapshot))
    assert "--allow-symlinks" in caught.value.hint
    assert read_tensors(open_store(snapshot, allow_symlinks=True))


def test_a_cache_entry_whose_blobs_lead_elsewhere_is_no_way_out(tmp_path):
    snapshot, elsewhere = tmp_path / "models--a/snapshots/1f", tmp_path / "other"
    for directory in (snapshot, elsewhere):
        directory.mkdir(parents=True)
    (elsewhere / "4c").write_bytes(tensors_as_bytes({"w": ("F32", [2])}))
    (tmp_path / "models--a/blobs").symlink_to(elsewhere)
    (snapshot / "model.safetensors").symlink_to("../../blobs/4c")
    with pytest.raises(StorageError, match="outside the checkpoint"):
        read_tensors(open_store(snapshot))


@pytest.mark.parametrize("name", ["model.safetensors", "model.safetensors.index.json"])
def test_weights_that_are_a_dangling_link_are_not_said_to_be_absent(tmp_path, name):
    (tmp_path / name).symlink_to("blobs/0123")
    with pytest.raises(StorageError, match=f"{name}: a dangling symbolic link: 'blobs/0123'"):
        read_tensors(open_store(tmp_path))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda path: path.mkdir(), "not a regular file"),
        (os.mkfifo, "not a regular file"),
        (lambda path: path.symlink_to("/etc/hostname"), "a symbolic link to '/etc/hostname', outside the checkpoint"),
    ],
)
def test_a_required_file_that_is_none_names_the_field_that_requires_it(tmp_path, make, said):
    write_files(tmp_path, metadata=requiring("config.json", "odd.py", custom_module_file="odd.py"))
    make(tmp_path / "odd.py")
    with pytest.raises(StorageError) as caught:
        open_checkpoint(tmp_path)
    field = f"{tmp_path}/metadata.json: loading_strategy.required_files names 'odd.py': {tmp_path}/odd.py: "
    assert caught.value.problem.startswith(f"{field}{said}")
    write_files(tmp_path, metadata=requiring("config.json", custom_module_file="odd.py"))
    with pytest.raises(StorageError, match=r"loading_strategy\.custom_module_file names 'odd\.py'"):
        open_checkpoint(tmp_path)
