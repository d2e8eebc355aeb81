"""Damaged files of the cache: never given out, and mended by the next run."""

import json
import os
import shutil
import time

import pytest

from cached_files import (
    DATA,
    SHA256,
    SOURCE,
    Server,
    aged,
    flip,
    flip_and_hide_it,
    hashed,
    is_fetched_again,
    receipt,
    record,
)
from wmtp.storage.cache import Source, VerifiedCache
from wmtp.storage.cached.upkeep import prune, remove


@pytest.fixture
def root(tmp_path):
    return tmp_path / "cache"


@pytest.fixture
def cached(root):
    """The blob of a cache that has one file."""
    return VerifiedCache(root).receive(SOURCE, Server(), sha256=SHA256)


def replace_with_others(blob):
    other = blob.with_name("other")
    other.write_bytes(b"\xff" + DATA[1:])
    other.replace(blob)


def replace_with_link(blob):
    target = blob.parent.parent / "elsewhere"
    shutil.copyfile(blob, target)
    blob.unlink()
    blob.symlink_to(target)


def replace_with_directory(blob):
    blob.unlink()
    (blob / "deep").mkdir(parents=True)


def replace_with_fifo(blob):
    blob.unlink()
    os.mkfifo(blob)


@pytest.mark.parametrize(
    "damage",
    [flip, flip_and_hide_it, replace_with_others, replace_with_link, replace_with_directory, replace_with_fifo,
     lambda blob: os.truncate(blob, 100), os.unlink],
)  # fmt: skip
def test_a_damaged_blob_is_dropped_and_fetched_again(root, cached, damage):
    time.sleep(0.02)  # times of files are as coarse as the system's clock
    damage(cached)
    assert is_fetched_again(root)


def test_what_a_model_has_mapped_is_never_written_to(root, cached):
    with cached.open("rb") as mapped:
        bad = cached.with_name("other")
        shutil.copyfile(cached, bad)
        flip(bad)
        bad.replace(cached)
        assert is_fetched_again(root)
        remove(VerifiedCache(root), [SOURCE.uri])
        assert (mapped.read(), cached.exists()) == (DATA, False)


def test_a_blob_that_was_only_touched_is_hashed_once_and_kept(root, cached, monkeypatch):
    os.utime(cached)
    seen = hashed(monkeypatch)
    assert VerifiedCache(root).find(SOURCE) == VerifiedCache(root).find(SOURCE) == cached
    assert len(seen) == 1


HOSTILE = [b"", b"\x00" * 500, b"[]", b"null", b"{}", b"{" * 60_000, b"\xff\xfe", b'{"size": NaN}', b"[" * 200_000,
           b'{"uri":"../../etc","name":"../x","size":-1,"version":"","sha256":"../../../etc/passwd"}',
           b'{"sha256":"' + b"0" * 64 + b'","size":1e400,"mtime_ns":"1","ctime_ns":{},"inode":[],"boot":1,"synced":1}',
           ]  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE)
def test_a_damaged_record_is_as_good_as_none(root, cached, text):
    record(root).write_bytes(text)
    assert VerifiedCache(root).entries() == []
    assert is_fetched_again(root)


@pytest.mark.parametrize("text", HOSTILE)
def test_a_damaged_receipt_means_that_the_blob_is_hashed(root, cached, text, monkeypatch):
    receipt(root).write_bytes(text)
    seen = hashed(monkeypatch)
    assert VerifiedCache(root).find(SOURCE) == cached
    assert len(seen) == 1
    assert json.loads(receipt(root).read_text())["synced"] is True


@pytest.mark.parametrize(
    "make", [lambda p: p.symlink_to("/dev/zero"), os.mkfifo, lambda p: (p / "deep").mkdir(parents=True)]
)
@pytest.mark.parametrize("which", [receipt, record])
def test_what_is_no_file_in_the_place_of_a_record_or_receipt_is_as_good_as_none(root, cached, make, which):
    path = which(root)
    path.unlink()
    make(path)
    found = VerifiedCache(root).find(SOURCE)
    assert found == (cached if which is receipt else None)
    remade = prune(aged(root))
    assert remade.entries == []
    assert VerifiedCache(root).receive(SOURCE, Server(), sha256=None).read_bytes() == DATA


def test_a_record_in_another_ones_place_is_not_believed(root, cached):
    other = Source(SOURCE.uri, "config.json", len(DATA), '"v1"')
    shutil.copyfile(record(root), VerifiedCache(root).records.path(other))
    assert VerifiedCache(root).find(other) is None
    assert [entry.source for entry in VerifiedCache(root).entries()] == [SOURCE]


def test_after_a_restart_of_the_machine_what_was_not_synced_is_hashed_again_once(root, cached, monkeypatch):
    assert json.loads(receipt(root).read_text())["synced"] is False
    monkeypatch.setattr("wmtp.storage.cached.blobs.boot_id", lambda: "the next boot")
    seen = hashed(monkeypatch)
    assert VerifiedCache(root).find(SOURCE) == cached
    monkeypatch.setattr("wmtp.storage.cached.blobs.boot_id", lambda: "the one after it")
    assert VerifiedCache(root).find(SOURCE) == cached
    assert len(seen) == 1


def test_bytes_that_a_power_loss_took_are_fetched_again(root, cached, monkeypatch):
    found = json.loads(receipt(root).read_text())
    flip_and_hide_it(cached)
    now = cached.stat()
    receipt(root).write_text(json.dumps({**found, "ctime_ns": now.st_ctime_ns, "mtime_ns": now.st_mtime_ns}))
    monkeypatch.setattr("wmtp.storage.cached.blobs.boot_id", lambda: "the next boot")
    assert is_fetched_again(root)


def test_a_blob_that_the_system_wrote_out_long_ago_is_trusted_in_the_next_boot_too(root, cached, monkeypatch):
    monkeypatch.setattr("wmtp.storage.cached.blobs._SETTLED_SECONDS", -1)
    seen = hashed(monkeypatch)
    assert VerifiedCache(root).find(SOURCE) == cached
    monkeypatch.setattr("wmtp.storage.cached.blobs.boot_id", lambda: "the next boot")
    assert VerifiedCache(root).find(SOURCE) == cached
    assert seen == []


def test_where_boots_cannot_be_told_apart_bytes_are_synced_first(root, monkeypatch):
    monkeypatch.setattr("wmtp.storage.cached.blobs.boot_id", lambda: "")
    VerifiedCache(root).receive(SOURCE, Server(), sha256=None)
    assert json.loads(receipt(root).read_text())["synced"] is True
