"""A signature holds for every file below a directory, hidden ones included, or it does not hold."""

import base64
import json
import subprocess
import sys

import pytest

pytest.importorskip("model_signing", reason="the extra wmtp[signing] is not installed")
pytest.importorskip("OpenSSL", reason="model-signing needs pyOpenSSL, which it does not declare")

from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from wmtp.errors import IntegrityError, NotFoundError, TrustError
from wmtp.trust.signatures import sign_directory, uncovered_files, verify_signature

FILES = ("config.json", "model.safetensors", ".hidden", "deep/er/notes.txt", "deep/.also hidden")


def write_keys(directory, name, key=None, password=None):
    """A pair of keys, as `NAME.pem` and `NAME.pub`."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    encryption = BestAvailableEncryption(password) if password else NoEncryption()
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)
    (directory / f"{name}.pem").write_bytes(private)
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (directory / f"{name}.pub").write_bytes(public)
    return directory / f"{name}.pem", directory / f"{name}.pub"


@pytest.fixture
def model(tmp_path):
    directory = tmp_path / "model"
    for name in FILES:
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_text(f"the bytes of {name}")
    return directory


@pytest.fixture
def signed(model, tmp_path):
    """Arguments of `verify_signature` for a directory that was signed."""
    private, public = write_keys(tmp_path, "key")
    sign_directory(model, tmp_path / "model.sig", private)
    return model, tmp_path / "model.sig", public


def refusal(signed, kind=IntegrityError):
    before = sorted(signed[0].rglob("*"))
    with pytest.raises(kind) as caught:
        verify_signature(*signed)
    assert sorted(signed[0].rglob("*")) == before
    return caught.value


def test_every_file_is_covered_and_named_hidden_ones_too(model, tmp_path):
    private, public = write_keys(tmp_path, "key")
    assert sign_directory(model, tmp_path / "model.sig", private) == sorted(FILES)
    assert verify_signature(model, tmp_path / "model.sig", public) == sorted(FILES)
    assert list(tmp_path.glob(".*")) == []


def test_a_directory_may_be_moved_and_named_through_a_link(signed, tmp_path):
    model, signature, public = signed
    model.rename(tmp_path / "moved")
    (tmp_path / "link").symlink_to(tmp_path / "moved")
    assert verify_signature(tmp_path / "link", signature, public) == sorted(FILES)


@pytest.mark.parametrize(
    "name",
    [".git/config", ".git/hooks/x", ".gitignore", ".gitattributes", ".github/x.yml", "deep/.github/x", "deep/.git/x",
     ".secret", "deep/.secret", "extra.py", "__pycache__/x.pyc", "model.sig"],
)  # fmt: skip
def test_an_added_file_is_refused_wherever_it_hides(signed, name):
    (signed[0] / name).parent.mkdir(parents=True, exist_ok=True)
    (signed[0] / name).write_text("added")
    error = refusal(signed)
    assert error.problem == f"{signed[0]}: the files are not those that were signed with {signed[1]}"
    assert error.faults == (f"Extra files found in model 'model': {name}",)


@pytest.mark.parametrize("name", FILES)
def test_a_removed_and_a_changed_file_are_refused_by_name(signed, name):
    path = signed[0] / name
    path.write_text(path.read_text() + " changed")
    (fault,) = refusal(signed).faults
    assert fault == f"Hash mismatch for '{name}'"
    path.unlink()
    (fault,) = refusal(signed).faults
    assert (fault.startswith("Missing files"), fault.endswith(f": {name}")) == (True, True)


def test_a_renamed_file_is_refused(signed):
    (signed[0] / "config.json").rename(signed[0] / "config2.json")
    faults = refusal(signed).faults
    assert [fault.rpartition(": ")[2] for fault in faults] == ["config2.json", "config.json"]


def test_a_signature_of_another_directory_is_refused(signed, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    for name in ("config.json", "weights.bin"):
        (other / name).write_text(f"the bytes of {name}")
    error = refusal((other, *signed[1:]))
    assert "the files are not those that were signed" in error.problem
    assert any(fault.endswith("weights.bin") for fault in error.faults)


def test_what_the_signer_left_out_is_not_left_out_here(model, tmp_path):
    from model_signing import hashing, signing

    private, public = write_keys(tmp_path, "key")
    (model / ".git").mkdir()
    (model / ".git" / "config").write_text("x")
    left_out = hashing.Config().set_ignored_paths(paths=["deep", "config.json"])
    signing.Config().use_elliptic_key_signer(private_key=private).set_hashing_config(left_out).sign(
        model, tmp_path / "model.sig"
    )
    (fault,) = refusal((model, tmp_path / "model.sig", public)).faults
    assert all(name in fault for name in (".git/config", "config.json", "deep/.also hidden", "deep/er/notes.txt"))


def test_a_signature_by_the_library_itself_is_understood_where_it_left_nothing_out(model, tmp_path):
    from model_signing import signing

    private, public = write_keys(tmp_path, "key", ec.generate_private_key(ec.SECP384R1()))
    signing.Config().use_elliptic_key_signer(private_key=private).sign(model, tmp_path / "model.sig")
    assert verify_signature(model, tmp_path / "model.sig", public) == sorted(FILES)


def test_files_that_no_name_covers_are_found_hidden_ones_too(model):
    (model / ".git").mkdir()
    (model / ".git" / "config").write_text("x")
    assert uncovered_files(model, FILES) == [".git/config"]
    assert uncovered_files(model, [*FILES, ".git/config"]) == []


def test_another_key_is_refused(signed, tmp_path):
    _, other = write_keys(tmp_path, "other")
    error = refusal((*signed[:2], other))
    assert f"{signed[1]}: no valid signature of this key: Key mismatch: The public key hash" in error.problem
    assert "check that the key is the signer's" in error.hint


def rewrite(signature, change):
    bundle = json.loads(signature.read_text())
    change(bundle)
    signature.write_text(json.dumps(bundle))


def change_statement(bundle):
    envelope = bundle["dsseEnvelope"]
    statement = base64.b64decode(envelope["payload"]).replace(b"config.json", b"konfig.json")
    envelope["payload"] = base64.b64encode(statement).decode()


def test_another_key_is_refused_also_where_the_signature_does_not_name_its_key(signed, tmp_path, capsys):
    _, other = write_keys(tmp_path, "other")
    rewrite(signed[1], lambda bundle: bundle["verificationMaterial"].update(publicKey={}))
    assert "no valid signature of this key: InvalidSignature" in refusal((*signed[:2], other)).problem
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    "change",
    [
        change_statement,
        dict.clear,
        lambda bundle: bundle.pop("dsseEnvelope"),
        lambda bundle: bundle["dsseEnvelope"].update(signatures=[]),
        lambda bundle: bundle["dsseEnvelope"].update(payload="!"),
        lambda bundle: bundle.update(verificationMaterial=[]),
        lambda bundle: bundle.update(mediaType="other"),
        lambda bundle: bundle["verificationMaterial"].pop("publicKey"),
    ],
)
def test_a_changed_or_malformed_signature_is_refused_by_file(signed, change):
    rewrite(signed[1], change)
    assert refusal(signed).problem.startswith(f"{signed[1]}: no valid signature of this key: ")


@pytest.mark.parametrize("data", [b"", b"\x30\x82", b"[]", b'{"a": 1, "a": 2}', b"[" * 100_000])
def test_a_file_that_is_no_bundle_is_refused_by_name(signed, data):
    signed[1].write_bytes(data)
    assert refusal(signed).problem.startswith(f"{signed[1]}: ")


def test_keys_that_cannot_be_used_are_refused_with_the_reason(signed, tmp_path):
    private, public = write_keys(tmp_path, "rsa", rsa.generate_private_key(65537, 2048))
    assert f"{public}: the key is " in refusal((*signed[:2], public), TrustError).problem
    _, public = write_keys(tmp_path, "curve", ec.generate_private_key(ec.SECP256K1()))
    assert f"{public}: the key is secp256k1, not one on" in refusal((*signed[:2], public), TrustError).problem
    public.write_text("not a key")
    error = refusal((*signed[:2], public), TrustError)
    assert f"{public}: cannot be used as a public key" in error.problem
    assert "openssl ec -in key.pem -pubout" in error.hint
    locked, _ = write_keys(tmp_path, "locked", password=b"secret")
    for key in (private, locked):
        with pytest.raises(TrustError, match=key.name):
            sign_directory(signed[0], tmp_path / "new.sig", key)
    assert not (tmp_path / "new.sig").exists()


def test_what_is_not_there_is_named(signed, tmp_path):
    nothing = tmp_path / "nothing"
    for position in range(3):
        arguments = [*signed[:position], nothing, *signed[position + 1 :]]
        with pytest.raises(NotFoundError, match=str(nothing)):
            verify_signature(*arguments)


def test_keys_and_signatures_in_the_directory_itself_are_refused(signed, tmp_path):
    model, signature, public = signed
    for arguments in ((model, model / "model.sig", public), (model, signature, model / "key.pub")):
        assert "inside the checkpoint, which cannot vouch for itself" in refusal(arguments, TrustError).problem
    with pytest.raises(TrustError, match="inside the checkpoint"):
        sign_directory(model, model / "model.sig", tmp_path / "key.pem")
    with pytest.raises(TrustError, match=r"key\.pem: this is the private key"):
        sign_directory(model, tmp_path / "key.pem", tmp_path / "key.pem")


@pytest.mark.parametrize("target", ["config.json", "/etc", "nowhere"])
def test_a_symbolic_link_is_refused_by_name(signed, target):
    (signed[0] / "link").symlink_to(target)
    error = refusal(signed)
    assert "model/link' because it is a symlink" in error.problem
    assert "cp -rL" in error.hint


def test_foreign_names_are_shown_safely(signed):
    (signed[0] / "a\x1b[2J\n.txt").write_text("x")
    (fault,) = refusal(signed).faults
    assert "a\\x1b[2J\\n.txt" in fault


def test_without_the_extra_the_error_says_what_to_install(signed):
    script = (
        "import sys; from pathlib import Path; sys.modules['OpenSSL'] = None\n"
        "from wmtp.trust.signatures import verify_signature\n"
        "verify_signature(*map(Path, sys.argv[1:]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *map(str, signed)], capture_output=True, text=True, check=False
    )
    assert "TrustError: signatures need the package model-signing" in done.stderr
    assert "hint: install it (python -m pip install 'wmtp[signing]')\n" in done.stderr
