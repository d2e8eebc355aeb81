"""The same promises before a real S3 server, which checks signatures and says itself what is wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import wmtp
from faults.site import CONFIG, WEIGHTS, Files, check_values
from servers.seaweed import SeaweedServer, upload_directory
from wmtp.errors import ChangedError, NotFoundError, StorageError
from wmtp.storage.opening import open_store

Upload = Callable[[Files], str]


@pytest.fixture
def upload(seaweed: SeaweedServer, s3_bucket: str, tmp_path: Path) -> Upload:
    """Puts files below `model`, and gives their address."""

    def to_bucket(files: Files) -> str:
        for name, data in files.items():
            (tmp_path / "files" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "files" / name).write_bytes(data)
        return upload_directory(seaweed.client(), s3_bucket, "model", tmp_path / "files")

    return to_bucket


@pytest.mark.parametrize("cache", [True, False])
def test_a_model_is_loaded_from_it(upload: Upload, tiny_files: Files, cache: bool):
    uri = upload(tiny_files)
    for _ in range(2):
        check_values(wmtp.load(uri, cache=cache), tiny_files)


def test_a_large_one_is_loaded_and_then_comes_from_the_cache(upload: Upload, large_files: Files):
    uri = upload(large_files)
    check_values(wmtp.load(uri), large_files)
    assert open_store(uri).bytes_to_fetch([WEIGHTS]) == 0


@pytest.mark.parametrize(
    ("variable", "told"), [("AWS_SECRET_ACCESS_KEY", "secret key is wrong"), ("AWS_ACCESS_KEY_ID", "access key")]
)
def test_wrong_credentials_are_told_apart(
    upload: Upload, tiny_files: Files, monkeypatch: pytest.MonkeyPatch, variable: str, told: str
):
    uri = upload(tiny_files)
    monkeypatch.setenv(variable, "recognisable")
    with pytest.raises(StorageError, match=told) as caught:
        wmtp.load(uri)
    assert uri in caught.value.problem
    assert "environment" in str(caught.value)
    assert "recognisable" not in str(caught.value)


def test_what_is_not_there_is_named(s3_bucket: str):
    with pytest.raises(NotFoundError, match="s3://none-such"):
        wmtp.load("s3://none-such/model")
    with pytest.raises(NotFoundError, match=f"s3://{s3_bucket}/none"):
        wmtp.load(f"s3://{s3_bucket}/none")


def test_an_object_that_was_replaced_is_another_version(upload: Upload, tiny_files: Files, other_files: Files):
    store = open_store(upload(tiny_files), cache=False)
    store.list_files()
    uri = upload(other_files)
    with pytest.raises(ChangedError, match=f"{uri}/{WEIGHTS}.*ETag.*ETag"):
        store.read_range(WEIGHTS, 0, 8)
    check_values(wmtp.load(uri), other_files)


def test_names_with_all_that_a_name_may_have_are_signed_and_found(upload: Upload, tiny_files: Files):
    names = ["sub dir/a b+c.json", "ä/ü&=é.json", "it's (1) [2] {3}, @4!.json", "日本/語.json"]
    store = open_store(upload({CONFIG: tiny_files[CONFIG], **{name: name.encode() for name in names}}))
    assert {info.name for info in store.list_files()} == {CONFIG, *names}
    for name, path in store.local_paths(names).items():
        assert path.read_bytes() == name.encode() == store.read_bytes(name, max_bytes=100)
