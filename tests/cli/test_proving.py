"""What `wmtp validate` holds a checkpoint to besides its own declaration: a lock, a signature."""

from __future__ import annotations

import json

import pytest

import head_files

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


def test_for_says_that_a_program_would_draft_and_imports_no_torch(wmtp, tmp_path):
    served = wmtp("validate", head_files.qwen3_5_vl(tmp_path), "--for", "vllm")
    assert served.exit_code == 0
    assert served.stdout.startswith(f"{tmp_path}: vLLM 0.32.0 would load 1 module (qwen3_5) and draft with them\n")
    facts = json.loads(wmtp("validate", tmp_path, "--for", "vllm", "--json").stdout)
    assert (facts["valid"], facts["for"]["version"]) == (True, "vLLM 0.32.0")
    assert facts["for"]["evidence"] == "seen in a run"


def test_for_fails_with_all_that_is_in_the_way(wmtp, tmp_path):
    head_files.deepseek(tmp_path, num_nextn_predict_layers=2, topk_method=None)
    refused = wmtp("validate", tmp_path, "--for", "vllm", "--json")
    assert refused.exit_code == 1
    error = json.loads(refused.stdout)["error"]
    assert error["problem"] == f"{tmp_path}: vLLM 0.32.0 would not draft with these heads: 2 things stand in the way"
    assert len(error["faults"]) == 2
    assert error["hint"] == f"mend each, then ask again: wmtp validate {tmp_path} --for vllm"


def test_for_goes_with_no_other_proof(wmtp, llama):
    refused = wmtp("validate", llama, "--for", "vllm", "--deep")
    assert refused.exit_code == 2
    assert "--for reads config.json and headers alone" in refused.stderr
    assert wmtp("validate", llama, "--for", "tgi").exit_code == 2


def test_the_programs_of_for_are_those_of_the_table():
    from wmtp.cli.proving import Server
    from wmtp.serving.table import PROGRAMS

    assert [program.value for program in Server] == list(PROGRAMS)
