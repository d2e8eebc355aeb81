import os

import pytest

from wmtp.errors import NotFoundError, StorageError
from wmtp.storage.opening import open_store
from wmtp.storage.store import FileInfo


@pytest.fixture
def checkpoint(tmp_path):
    directory = tmp_path / "model"
    (directory / "sub").mkdir(parents=True)
    (directory / "config.json").write_bytes(b"{}")
    (directory / "sub/part.bin").write_bytes(b"0123456789")
    (directory / ".git").mkdir()
    (directory / ".git/config").write_text("x")
    return directory


def test_files_are_listed_with_their_sizes_without_the_hidden_ones(checkpoint):
    assert open_store(checkpoint).list_files() == [FileInfo("config.json", 2), FileInfo("sub/part.bin", 10)]


def test_a_range_and_a_small_file_are_read_exactly(checkpoint):
    store = open_store(str(checkpoint))
    assert store.read_range("sub/part.bin", 3, 4) == b"3456"
    assert store.read_bytes("config.json", max_bytes=2) == b"{}"


def test_a_local_file_needs_no_fetching(checkpoint):
    paths = open_store(checkpoint).local_paths(["config.json", "sub/part.bin"])
    assert paths == {name: checkpoint / name for name in ("config.json", "sub/part.bin")}


def test_a_file_larger_than_its_kind_is_refused_unread(checkpoint):
    with pytest.raises(StorageError, match=r"part\.bin: 10 bytes, more than the 9 allowed"):
        open_store(checkpoint).read_bytes("sub/part.bin", max_bytes=9)


def test_a_range_past_the_end_is_an_error_with_both_lengths(checkpoint):
    with pytest.raises(StorageError, match=r"part\.bin: 2 bytes at 8, 4 expected"):
        open_store(checkpoint).read_range("sub/part.bin", 8, 4)


def test_a_missing_file_is_named_and_can_be_asked_about(checkpoint):
    store = open_store(checkpoint)
    assert not store.has("absent.json")
    assert not store.has("config.json/below")
    with pytest.raises(NotFoundError, match=r"absent\.json: no such file"):
        store.stat("absent.json")


@pytest.mark.parametrize("name", ["../model/config.json", "/etc/passwd", "a\\b", "sub/./part.bin", ".git/config"])
def test_a_name_that_breaks_the_path_rule_is_refused(checkpoint, name):
    with pytest.raises(StorageError, match=r"the file name '.*' (has|is) "):
        open_store(checkpoint).read_range(name, 0, 1)


def test_directories_and_fifos_are_no_regular_files(checkpoint):
    os.mkfifo(checkpoint / "pipe")
    store = open_store(checkpoint)
    for name in ("sub", "pipe"):
        with pytest.raises(StorageError, match=f"{name}: not a regular file"):
            store.read_bytes(name, max_bytes=10)


def test_a_name_too_long_for_the_file_system_is_our_own_error(checkpoint):
    with pytest.raises(StorageError, match="has a part longer than 255 bytes"):
        open_store(checkpoint).stat("a" * 1000)
    with pytest.raises(StorageError, match="File name too long"):
        open_store("/" + "a" * 1000)


def test_a_link_inside_the_directory_is_followed(checkpoint):
    (checkpoint / "link.bin").symlink_to("sub/part.bin")
    assert open_store(checkpoint).read_range("link.bin", 0, 2) == b"01"


def test_a_link_out_of_the_directory_is_refused_unless_the_caller_allows_it(checkpoint, tmp_path):
    (tmp_path / "secret").write_bytes(b"s")
    (checkpoint / "link").symlink_to("../secret")
    with pytest.raises(StorageError) as caught:
        open_store(checkpoint).read_bytes("link", max_bytes=1)
    assert "link: a symbolic link to '" in caught.value.problem
    assert "allow_symlinks=True" in caught.value.hint
    assert open_store(checkpoint, allow_symlinks=True).read_bytes("link", max_bytes=1) == b"s"


def test_a_linked_directory_does_not_lead_out_either(checkpoint, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/file").write_bytes(b"s")
    (checkpoint / "dir").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StorageError, match="outside the checkpoint"):
        open_store(checkpoint).stat("dir/file")


def test_a_hugging_face_snapshot_may_link_to_the_blobs_of_its_own_entry_only(tmp_path):
    for entry in ("models--a--b", "models--c--d"):
        (tmp_path / entry / "blobs").mkdir(parents=True)
        (tmp_path / entry / "blobs/1234").write_bytes(b"blob")
    snapshot = tmp_path / "models--a--b/snapshots/abcdef"
    snapshot.mkdir(parents=True)
    (snapshot / "own").symlink_to("../../blobs/1234")
    (snapshot / "foreign").symlink_to("../../../models--c--d/blobs/1234")
    store = open_store(snapshot)
    assert store.read_bytes("own", max_bytes=9) == b"blob"
    with pytest.raises(StorageError, match="outside the checkpoint"):
        store.stat("foreign")


def test_a_circle_of_links_is_an_error_not_a_hang(checkpoint):
    (checkpoint / "x").symlink_to("y")
    (checkpoint / "y").symlink_to("x")
    with pytest.raises(StorageError, match="x: "):
        open_store(checkpoint).stat("x")


def test_a_missing_directory_names_what_stands_beside_it(checkpoint, tmp_path):
    with pytest.raises(NotFoundError) as caught:
        open_store(tmp_path / "modle")
    assert caught.value.problem == f"{tmp_path}/modle: no such directory"
    assert caught.value.hint == "check the path; beside it are: 'model'"


def test_a_file_in_place_of_a_directory_says_so(checkpoint):
    with pytest.raises(NotFoundError) as caught:
        open_store(checkpoint / "config.json")
    assert caught.value.problem.endswith("config.json: not a directory")
    assert caught.value.hint == f"name the directory that holds it: {checkpoint}"


@pytest.mark.parametrize("link", ["model.safetensors", "deep"])
def test_a_dangling_link_is_called_one_and_its_target_is_named(tmp_path, link):
    (tmp_path / link).symlink_to("../blobs/0123")
    name = "deep/model.safetensors" if link == "deep" else link
    for read in (open_store(tmp_path).stat, open_store(tmp_path).has):
        with pytest.raises(StorageError) as refusal:
            read(name)
        assert refusal.value.problem == (
            f"{tmp_path}/{link}: a dangling symbolic link: '../blobs/0123', to which it points, is not there"
        )


def test_a_directory_that_is_a_dangling_link_is_called_one(tmp_path):
    (tmp_path / "model").symlink_to("gone")
    with pytest.raises(StorageError, match="a dangling symbolic link: 'gone', to which it points, is not there"):
        open_store(tmp_path / "model")


@pytest.mark.parametrize("name", ["some-org/some.model-7B", "some-org/some-model@main"])
def test_what_looks_like_a_name_on_the_hub_gets_its_address_there(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(NotFoundError) as refusal:
        open_store(name)
    assert refusal.value.problem == f"{name}: no such directory"
    assert refusal.value.hint.endswith(f"if the model of that name on the Hugging Face Hub is meant: hf://{name}")


@pytest.mark.parametrize("name", ["model", "./some-org/model", "../org/model", "a/b/c", "org/mo del", "/org/model"])
def test_what_looks_like_a_path_gets_no_address_on_the_hub(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(NotFoundError) as refusal:
        open_store(name)
    assert "hf://" not in refusal.value.hint
