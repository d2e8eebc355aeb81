"""What `wmtp validate` holds a checkpoint to besides its own declaration: a lock, a signature."""

from __future__ import annotations

import json

import pytest

PRIVATE_KEY, PUBLIC_KEY = "key.pem", "key.pub"


@pytest.fixture
def keys(tmp_path):
    pytest.importorskip("model_signing", reason="the extra wmtp[signing] is not installed")
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    private = ec.generate_private_key(ec.SECP256R1())
    encoding = serialization.Encoding.PEM
    unencrypted = serialization.NoEncryption()
    pem = private.private_bytes(encoding, serialization.PrivateFormat.PKCS8, unencrypted)
    (tmp_path / PRIVATE_KEY).write_bytes(pem)
    public = private.public_key().public_bytes(encoding, serialization.PublicFormat.SubjectPublicKeyInfo)
    (tmp_path / PUBLIC_KEY).write_bytes(public)
    return tmp_path


def test_a_lock_written_by_wmtp_lock_is_proven_by_validate_and_load(wmtp, llama, tmp_path):
    lock = tmp_path / "llama.lock.json"
    assert wmtp("lock", llama, "--output", lock).exit_code == 0
    assert wmtp("validate", llama, "--deep", "--lock", lock).exit_code == 0
    receipt = json.loads(wmtp("load", llama, "--lock", lock, "--json").stdout)
    assert {"config.json", "metadata.json", "model.safetensors"} <= set(receipt["verified"])
    (llama / "config.json").write_text((llama / "config.json").read_text() + " ")
    for verb in ("validate", "load"):
        refused = wmtp(verb, llama, "--lock", lock)
        assert refused.exit_code == 1
        assert f"error: {llama}/config.json: it has sha256:" in refused.stderr


def test_deep_finds_a_file_that_was_added_beside_a_locked_checkpoint(wmtp, llama, tmp_path):
    lock = tmp_path / "llama.lock.json"
    wmtp("lock", llama, "--output", lock)
    (llama / "notes.txt").write_text("hello")
    assert "notes.txt: this file is not in the lock" in wmtp("validate", llama, "--deep", "--lock", lock).stderr


def test_a_signature_made_by_wmtp_lock_is_proven_by_validate(wmtp, llama, keys):
    signature = keys / "model.sig"
    made = wmtp("lock", llama, "--sign-with", keys / PRIVATE_KEY, "--signature", signature)
    assert made.exit_code == 0, made.stderr
    proven = wmtp("validate", llama, "--signature", signature, "--public-key", keys / PUBLIC_KEY)
    assert "the signature holds for all" in proven.stdout
    (llama / ".hidden").write_text("added")
    refused = wmtp("validate", llama, "--signature", signature, "--public-key", keys / PUBLIC_KEY)
    assert refused.exit_code == 1
    assert ".hidden" in refused.stderr


def test_a_signature_without_a_key_is_wrong_usage(wmtp, llama):
    refused = wmtp("validate", llama, "--signature", "model.sig")
    assert refused.exit_code == 2
    assert "--signature and --public-key go together" in refused.stderr
