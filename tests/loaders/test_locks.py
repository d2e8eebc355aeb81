"""A lock pins what files must be: nothing of another content reaches a model."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import wmtp
from checkpoints import write_custom
from wmtp.errors import IntegrityError, NotFoundError, TrustError
from wmtp.loaders.base import execute, prepare
from wmtp.manifest import Manifest, sha256_bytes
from wmtp.settings.loading import LoadOptions
from wmtp.storage.locked import LockedStore


def write_lock(directory: Path) -> Path:
    lock = directory.parent / f"{directory.name}.lock.json"
    names = [path.relative_to(directory).as_posix() for path in directory.rglob("*") if path.is_file()]
    lock.write_text(Manifest.of_directory(directory, names).model_dump_json())
    return lock


def flip_last_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("mmap", [True, False], ids=["mmap", "read"])
@pytest.mark.parametrize("dtype", ["auto", "float32"])
def test_a_checkpoint_that_is_what_its_lock_says_loads_and_the_receipt_says_verified(saved, mmap, dtype):
    directory, model = saved("llama", dtype=torch.bfloat16, shards=True)
    result = wmtp.load(directory, lock=write_lock(directory), mmap=mmap, dtype=dtype)
    shards = {path.name for path in directory.glob("model-*.safetensors")}
    assert shards | {"config.json", "metadata.json"} <= set(result.receipt.verified)
    assert any(line.startswith("verified by the lock: ") for line in result.receipt.summary())
    assert torch.equal(result.model.model.norm.weight, model.model.norm.weight.to(result.model.dtype))


@pytest.mark.parametrize("name", ["metadata.json", "config.json", "model.safetensors"])
def test_a_file_that_differs_from_its_lock_is_refused_with_both_digests(saved, name):
    directory, _ = saved("llama")
    lock = write_lock(directory)
    flip_last_byte(directory / name)
    with pytest.raises(IntegrityError) as refusal:
        wmtp.plan_load(directory, lock=lock)
    pinned = next(entry.sha256 for entry in Manifest.read(lock).files if entry.path == name)
    assert f"{directory}/{name}: it has {sha256_bytes((directory / name).read_bytes())}" in refusal.value.problem
    assert f"the lock has sha256:{pinned}" in refusal.value.problem


def test_code_is_held_to_the_lock_as_well_and_a_lock_is_no_consent(tmp_path):
    directory = tmp_path / "model"
    consent, _ = write_custom(directory)
    lock = write_lock(directory)
    with pytest.raises(TrustError, match="nobody agreed to run it"):
        wmtp.load(directory, lock=lock)
    assert "modeling.py" in wmtp.load(directory, lock=lock, allow_code=consent).receipt.verified
    (directory / "modeling.py").write_text((directory / "modeling.py").read_text() + "# another version")
    with pytest.raises(IntegrityError, match=r"modeling\.py: it has"):
        wmtp.load(directory, lock=lock, allow_code=consent)


def test_a_file_that_was_added_after_the_lock_was_written_is_refused_when_it_would_be_read(saved):
    directory, _ = saved("llama")
    lock = write_lock(directory)
    (directory / "generation_config.json").write_text("{}")
    manifest = json.loads(lock.read_text())
    manifest["files"] = [entry for entry in manifest["files"] if entry["path"] != "generation_config.json"]
    lock.write_text(json.dumps(manifest))
    with pytest.raises(IntegrityError, match=r"generation_config\.json: this file is not in the lock"):
        wmtp.load(directory, lock=lock)


def test_a_file_that_the_lock_names_and_nobody_finds_is_refused(saved):
    directory, _ = saved("llama")
    lock = write_lock(directory)
    (directory / "generation_config.json").unlink()
    with pytest.raises(IntegrityError, match=r"1 files of the lock are missing: 'generation_config\.json'"):
        wmtp.load(directory, lock=lock)


def test_digests_given_one_by_one_pin_the_files_that_they_name(saved):
    directory, _ = saved("llama")
    digest = sha256_bytes((directory / "model.safetensors").read_bytes())
    receipt = wmtp.load(directory, lock={"model.safetensors": digest}).receipt
    assert receipt.verified == {"model.safetensors": digest}
    with pytest.raises(IntegrityError, match=r"model\.safetensors: it has"):
        wmtp.load(directory, lock={"model.safetensors": "sha256:" + "0" * 64})


def test_without_a_lock_the_receipt_says_unverified(saved):
    directory, _ = saved("llama")
    assert "unverified, as no lock pins them: model.safetensors" in wmtp.load(directory).receipt.summary()


@pytest.mark.parametrize("digest", ["0" * 64, "sha256:00", "sha256:" + "A" * 64, None, "md5:" + "0" * 64])
def test_what_is_no_digest_is_refused_before_anything_is_read(saved, digest):
    directory, _ = saved("llama")
    with pytest.raises(TrustError, match=r"lock: 'config\.json' is pinned to"):
        wmtp.load(directory, lock={"config.json": digest})


def test_a_lock_inside_the_checkpoint_cannot_vouch_for_it(saved):
    directory, _ = saved("llama")
    inside = directory / "model.lock.json"
    write_lock(directory).rename(inside)
    with pytest.raises(TrustError, match="cannot vouch for itself"):
        wmtp.load(directory, lock=inside)


def test_a_lock_that_is_not_there_or_no_lock_is_named(saved, tmp_path_factory):
    directory, _ = saved("llama")
    tmp_path = tmp_path_factory.mktemp("locks")
    with pytest.raises(NotFoundError, match=r"none\.json: no such lock file"):
        wmtp.load(directory, lock=tmp_path / "none.json")
    (tmp_path / "bad.json").write_text('{"files": [{"path": "../x", "size": 1, "sha256": "00"}]}')
    with pytest.raises(IntegrityError, match=r"bad\.json: 2 faults"):
        wmtp.load(directory, lock=tmp_path / "bad.json")


def swap_weights(directory: Path, change) -> None:
    """Put another file in place by rename, with the time stamps of the old one: what a co-tenant would do."""
    file = directory / "model.safetensors"
    old = file.stat()
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, directory / "new")
    os.utime(directory / "new", ns=(old.st_atime_ns, old.st_mtime_ns))
    (directory / "new").rename(file)


@pytest.mark.parametrize("mmap", [True, False], ids=["mmap", "read"])
def test_weights_that_were_swapped_between_plan_and_load_are_refused(saved, mmap):
    directory, _ = saved("llama")
    prepared = prepare(directory, LoadOptions(lock=write_lock(directory), mmap=mmap))
    swap_weights(directory, lambda tensors: tensors["model.norm.weight"].add_(1))
    with pytest.raises(IntegrityError, match=r"model\.safetensors: it has"):
        execute(prepared)


def test_a_plan_made_from_another_header_than_the_verified_one_is_refused(saved):
    directory, _ = saved("llama")
    file = directory / "model.safetensors"
    good = file.read_bytes()
    first, second = b"model.layers.0.mlp.up_proj.weight", b"model.layers.1.mlp.up_proj.weight"
    file.write_bytes(good.replace(first, b"<first>").replace(second, first).replace(b"<first>", second))
    prepared = prepare(directory, LoadOptions(mmap=False))
    file.write_bytes(good)
    locked = LockedStore(prepared.checkpoint.store, {"model.safetensors": sha256_bytes(good)}, pins_all=False)
    prepared = replace(prepared, checkpoint=replace(prepared.checkpoint, store=locked))
    with pytest.raises(IntegrityError, match="its header changed while it was being loaded"):
        execute(prepared)


@pytest.mark.parametrize("lock", [True, 1, b"lock.json", ["model.safetensors"]])
def test_what_is_no_lock_at_all_is_refused(saved, lock):
    directory, _ = saved("llama")
    with pytest.raises(TrustError, match="which pins nothing"):
        wmtp.load(directory, lock=lock)
