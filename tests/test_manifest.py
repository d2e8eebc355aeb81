import hashlib
import json

import pytest

from wmtp.errors import IntegrityError
from wmtp.manifest import FileDigest, Manifest, digest_file, sha256_bytes


@pytest.fixture
def directory(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "a.bin").write_bytes(b"a" * 3_000_000)
    (tmp_path / "sub/b.txt").write_bytes(b"bee")
    return tmp_path


def test_a_manifest_holds_size_and_sha256_of_each_file_sorted_by_name(directory):
    manifest = Manifest.of_directory(directory, ["sub/b.txt", "a.bin"])
    assert [entry.path for entry in manifest.files] == ["a.bin", "sub/b.txt"]
    assert manifest.files[0].size == 3_000_000
    assert manifest.files[0].sha256 == hashlib.sha256(b"a" * 3_000_000).hexdigest()


def test_an_unchanged_directory_verifies_and_the_manifest_survives_its_own_file(directory, tmp_path):
    manifest = Manifest.of_directory(directory, ["a.bin", "sub/b.txt"])
    path = tmp_path / "manifest.json"
    path.write_text(manifest.model_dump_json())
    assert Manifest.read(path) == manifest
    manifest.verify_directory(directory)


def test_every_missing_or_changed_file_is_named_with_both_digests(directory):
    manifest = Manifest.of_directory(directory, ["a.bin", "sub/b.txt"])
    (directory / "a.bin").unlink()
    (directory / "sub/b.txt").write_bytes(b"bug")
    with pytest.raises(IntegrityError) as caught:
        manifest.verify_directory(directory)
    assert caught.value.problem == f"{directory}: 2 of 2 files differ from their manifest"
    old, new = (hashlib.sha256(data).hexdigest() for data in (b"bee", b"bug"))
    assert caught.value.faults == (
        "a.bin is missing",
        f"sub/b.txt has sha256 {new} (3 bytes), expected {old} (3 bytes)",
    )


def test_a_manifest_that_names_a_file_outside_is_refused_with_all_its_faults(tmp_path):
    path = tmp_path / "manifest.json"
    path.write_text('{"files": [{"path": "../x", "size": -1, "sha256": "AB"}]}')
    with pytest.raises(IntegrityError) as caught:
        Manifest.read(path)
    assert caught.value.problem == f"{path}: 3 faults"
    assert caught.value.faults[0].startswith("files.0.path is '../x', which has the part '..' in it")
    assert "files.0.size is -1" in caught.value.faults[1]
    assert "files.0.sha256 is 'AB'" in caught.value.faults[2]


def test_a_manifest_that_is_not_json_is_refused_by_name(tmp_path):
    path = tmp_path / "manifest.json"
    path.write_text('{"files": [')
    with pytest.raises(IntegrityError, match=r"manifest\.json: is not JSON"):
        Manifest.read(path)


def test_an_empty_file_has_the_well_known_digest(tmp_path):
    (tmp_path / "empty").touch()
    expected = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert digest_file(tmp_path, "empty") == FileDigest(path="empty", size=0, sha256=expected)
    assert sha256_bytes(b"") == f"sha256:{expected}"


def test_a_manifest_that_names_a_file_twice_is_refused(tmp_path):
    entry = {"path": "a.txt", "size": 1, "sha256": "0" * 64}
    (tmp_path / "manifest.json").write_text(json.dumps({"files": [entry, entry | {"size": 2}]}))
    with pytest.raises(IntegrityError, match=r"names a file twice: 'a\.txt'"):
        Manifest.read(tmp_path / "manifest.json")
