"""lock."""

import hashlib
import json

import pytest

from wmtp.manifest import Manifest


@pytest.fixture
def lock_file(tmp_path):
    return tmp_path / "llama.lock"


def test_lock_prints_the_digest_of_every_file_pickles_included_and_hidden_ones_not(wmtp, llama):
    (llama / "old.bin").write_bytes(b"\x80pickle")
    (llama / "deep").mkdir()
    (llama / "deep" / "a.txt").write_text("")
    (llama / ".hidden").write_text("x")
    result = wmtp("lock", llama)
    assert result.exit_code == 0
    files = json.loads(result.stdout)["files"]
    assert [file["path"] for file in files] == sorted(
        str(path.relative_to(llama)) for path in llama.rglob("*") if path.is_file() and path.name != ".hidden"
    )
    (old,) = [file for file in files if file["path"] == "old.bin"]
    assert old == {"path": "old.bin", "size": 7, "sha256": hashlib.sha256(b"\x80pickle").hexdigest()}
    assert result.stderr == f"keep the lock outside the checkpoint, and load with: wmtp load {llama} --lock FILE\n"


def test_lock_writes_a_file_that_verifies_the_checkpoint(wmtp, llama, lock_file):
    result = wmtp("lock", llama, "--output", lock_file)
    num_files = len(list(llama.iterdir()))
    assert result.stdout.startswith(f"wrote {lock_file}: {num_files} files, ")
    assert f"--lock {lock_file}\n" in result.stderr
    Manifest.read(lock_file).verify_directory(llama)
    assert lock_file.read_text() == wmtp("lock", llama).stdout
    assert list(lock_file.parent.glob(".*")) == []


def test_lock_again_is_fine_while_nothing_changed(wmtp, llama, lock_file):
    assert wmtp("lock", llama, "--output", lock_file).exit_code == 0
    facts = json.loads(wmtp("lock", llama, "--output", lock_file, "--json").stdout)
    assert (facts["path"], facts["changes"]) == (str(lock_file), [])


def test_a_lock_that_differs_is_replaced_only_with_yes_and_both_digests_are_shown(wmtp, llama, lock_file):
    assert wmtp("lock", llama, "--output", lock_file).exit_code == 0
    before = lock_file.read_bytes()
    (llama / "config.json").write_text("{}")
    (llama / "extra.txt").write_text("x")
    (llama / "generation_config.json").unlink()
    old = next(entry for entry in Manifest.read(lock_file).files if entry.path == "config.json")
    result = wmtp("lock", llama, "--output", lock_file)
    assert (result.exit_code, lock_file.read_bytes()) == (1, before)
    new = hashlib.sha256(b"{}").hexdigest()
    change = f"config.json: sha256:{old.sha256} ({old.size} bytes) in the lock, sha256:{new} (2 bytes) now"
    assert change in result.stderr
    assert "generation_config.json: sha256:" in result.stderr
    assert "extra.txt: not there in the lock, sha256:" in result.stderr
    assert "--yes writes the lock anew" in result.stderr
    assert change in wmtp("lock", llama, "--output", lock_file, "--yes").stdout
    Manifest.read(lock_file).verify_directory(llama)


def test_a_file_that_is_no_lock_is_never_replaced(wmtp, llama, lock_file):
    lock_file.write_text("my notes")
    result = wmtp("lock", llama, "--output", lock_file, "--yes")
    assert (result.exit_code, lock_file.read_text()) == (1, "my notes")
    assert f"{lock_file} is no lock, so it is not replaced: " in result.stderr


@pytest.mark.parametrize("name", ["a.lock", "deep/../a.lock", "../link/a.lock"])
def test_a_lock_inside_the_checkpoint_is_refused(wmtp, llama, name):
    (llama.parent / "link").symlink_to(llama)
    before = sorted(llama.iterdir())
    result = wmtp("lock", llama, "--output", llama / name)
    assert result.exit_code == 1
    assert "inside the checkpoint, which cannot vouch for itself" in result.stderr
    assert sorted(llama.iterdir()) == before


def test_a_directory_that_is_no_checkpoint_is_refused(wmtp, llama):
    (llama / "metadata.json").unlink()
    result = wmtp("lock", llama)
    assert (result.exit_code, result.stdout) == (1, "")
    assert f"{llama}/metadata.json: no such file" in result.stderr


def test_links_are_followed_only_when_allowed(wmtp, llama, tmp_path):
    (tmp_path / "outside.txt").write_text("far away")
    (llama / "notes.txt").symlink_to(tmp_path / "outside.txt")
    result = wmtp("lock", llama)
    assert result.exit_code == 1
    assert "notes.txt: a symbolic link to" in result.stderr
    files = json.loads(wmtp("lock", llama, "--allow-symlinks").stdout)["files"]
    digests = {file["path"]: file["sha256"] for file in files}
    assert digests["notes.txt"] == hashlib.sha256(b"far away").hexdigest()


def test_a_name_that_no_lock_can_hold_is_an_error_that_shows_it_safely(wmtp, llama):
    (llama / "a\x1bb.txt").write_text("x")
    result = wmtp("lock", llama)
    assert result.exit_code == 1
    assert "the file name 'a\\x1bb.txt' has an unprintable character in it" in result.stderr


def test_a_place_that_cannot_be_written_is_a_typed_error(wmtp, llama, tmp_path):
    result = wmtp("lock", llama, "--output", tmp_path / "nowhere" / "a.lock")
    assert result.exit_code == 1
    assert "nowhere/a.lock: No such file or directory\nhint: check the directory and its permissions" in result.stderr


@pytest.fixture
def key(tmp_path):
    """A private key; its public half is beside it."""
    pytest.importorskip("model_signing", reason="the extra wmtp[signing] is not installed")
    ec = pytest.importorskip("cryptography.hazmat.primitives.asymmetric.ec")
    from cryptography.hazmat.primitives import serialization as form

    private = ec.generate_private_key(ec.SECP256R1())
    pkcs8 = private.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, form.NoEncryption())
    (tmp_path / "key.pem").write_bytes(pkcs8)
    public = private.public_key().public_bytes(form.Encoding.PEM, form.PublicFormat.SubjectPublicKeyInfo)
    (tmp_path / "key.pub").write_bytes(public)
    return tmp_path / "key.pem"


def test_lock_signs_the_directory_when_given_a_key(wmtp, llama, key, tmp_path):
    from wmtp.trust.signatures import verify_signature

    signature = tmp_path / "llama.sig"
    result = wmtp("lock", llama, "--sign-with", key, "--signature", signature)
    assert result.exit_code == 0
    assert f"wmtp validate {llama} --signature {signature} --public-key PUBLIC.pem" in result.stderr
    names = [entry["path"] for entry in json.loads(result.stdout)["files"]]
    assert verify_signature(llama, signature, tmp_path / "key.pub") == names


def test_a_file_in_the_place_of_the_signature_is_replaced_only_with_yes(wmtp, llama, key, tmp_path):
    signature = tmp_path / "llama.sig"
    signature.write_text("something else")
    words = ("lock", llama, "--sign-with", key, "--signature", signature)
    result = wmtp(*words)
    assert (result.exit_code, signature.read_text()) == (1, "something else")
    assert "there is a file of that name" in result.stderr
    assert wmtp(*words, "--yes").exit_code == 0
    assert signature.read_text().startswith("{")


def test_a_key_without_a_place_for_the_signature_is_wrong_usage(wmtp, llama, tmp_path):
    result = wmtp("lock", llama, "--sign-with", tmp_path / "key.pem")
    assert result.exit_code == 2
    assert "--sign-with and --signature go together" in result.stderr
