"""Looking after the cache: what goes, and what stays."""

import json
from pathlib import Path

import pytest

from cached_files import DATA, SHA256, SOURCE, Server, aged, flip, is_fetched_again, names, receipt, record
from wmtp.errors import StorageError
from wmtp.storage.cache import Source, VerifiedCache
from wmtp.storage.cached.upkeep import prune, remove, verify


@pytest.fixture
def root(tmp_path):
    return tmp_path / "cache"


@pytest.fixture
def cached(root):
    """The blob of a cache that has one file."""
    return VerifiedCache(root).receive(SOURCE, Server(), sha256=SHA256)


@pytest.fixture
def _everything_is_old(monkeypatch):
    monkeypatch.setattr("wmtp.storage.cached.upkeep._YOUNG_SECONDS", -1)


def two_more(root):
    """A file of a second checkpoint that was used lately, and one with the bytes of the first."""
    new = Source("s3://lab/other", "a.bin", 1000, '"n"')
    VerifiedCache(root).receive(new, Server(b"n" * 1000), sha256=None)
    twin = Source("s3://lab/other", "b.bin", len(DATA), '"t"')
    VerifiedCache(root).receive(twin, Server(), sha256=None)
    return new, twin


def test_files_unused_for_long_are_removed_and_shared_bytes_stay(root, cached):
    cache = aged(root)
    new, twin = two_more(root)
    removed = prune(cache, unused_for_seconds=1800)
    assert ([entry.source for entry in removed.entries], removed.num_bytes) == ([SOURCE], 0)
    assert VerifiedCache(root).find(twin) == cached
    aged(root)
    assert VerifiedCache(root).find(new).stat().st_size == 1000
    removed = prune(cache, unused_for_seconds=1800)
    assert ([entry.source for entry in removed.entries], removed.num_bytes) == ([twin], len(DATA))
    assert names(root / "blobs") == [VerifiedCache(root).find(new).name]


def test_the_least_recently_used_go_until_the_rest_fits(root, cached):
    cache = aged(root)
    new = Source("s3://lab/other", "a.bin", 1000, '"n"')
    VerifiedCache(root).receive(new, Server(b"n" * 1000), sha256=None)
    assert prune(cache, max_bytes=len(DATA) + 1000).entries == []
    assert [entry.source for entry in prune(cache, max_bytes=len(DATA)).entries] == [SOURCE]
    assert [entry.source for entry in cache.entries()] == [new]


@pytest.mark.usefixtures("_everything_is_old")
def test_pruning_sweeps_whatever_has_no_use(root, cached):
    blobs, entries = root / "blobs", root / "entries"
    (blobs / ("0" * 64)).write_bytes(b"no record")
    (blobs / "stray").symlink_to("/etc/passwd")
    (blobs / "directory/deep").mkdir(parents=True)
    (root / "receipts" / f"{'1' * 64}.json").write_text("{}")
    (entries / "junk").write_text("x")
    (entries / "empty").mkdir()
    (entries / "abc").mkdir()
    (entries / "abc/x.json").write_text("{")
    (root / "parts" / f"{'a' * 64}.{'b' * 32}.part").write_bytes(b"12345")
    assert prune(VerifiedCache(root)).num_bytes >= 5 + len(b"no record")
    assert sorted(path.name for path in root.rglob("*") if path.is_file() or path.is_symlink()) == sorted(
        ["CACHEDIR.TAG", SHA256, receipt(root).name, record(root).name]
    )
    assert VerifiedCache(root).find(SOURCE) == cached
    assert Path("/etc/passwd").exists()


def test_pruning_spares_blobs_that_somebody_may_be_about_to_record(root, cached):
    record(root).unlink()
    prune(VerifiedCache(root))
    assert cached.exists()


def test_a_download_in_progress_survives_pruning(root):
    def chunks(start):
        yield DATA[:100_000]
        assert prune(VerifiedCache(root), max_bytes=0).num_bytes == 0
        yield DATA[100_000:]

    assert VerifiedCache(root).receive(SOURCE, chunks, sha256=SHA256).read_bytes() == DATA


def test_a_removed_checkpoint_is_gone_and_others_stay(root, cached):
    _, twin = two_more(root)
    with pytest.raises(
        StorageError, match=r"nothing is cached of 's3://lab/moodel' \(did you mean 's3://lab/model'\?\)"
    ):
        remove(VerifiedCache(root), ["s3://lab/moodel"])
    assert remove(VerifiedCache(root), [SOURCE.uri]).num_bytes == 0
    assert VerifiedCache(root).find(SOURCE) is None
    assert VerifiedCache(root).find(twin) == cached


def test_verifying_hashes_everything_and_removes_what_is_damaged(root, cached):
    new = Source("s3://lab/other", "a.bin", 1000, '"n"')
    good = VerifiedCache(root).receive(new, Server(b"n" * 1000), sha256=None)
    flip(cached)
    checked = verify(VerifiedCache(root))
    assert (checked.num_blobs, checked.num_bytes, checked.kept) == (2, len(DATA) + 1000, [])
    assert {sha256: [e.source for e in entries] for sha256, entries in checked.damaged.items()} == {SHA256: [SOURCE]}
    assert [entry.source for entry in VerifiedCache(root).entries()] == [new]
    assert json.loads((root / "receipts" / f"{good.name}.json").read_text())["synced"] is True
    assert is_fetched_again(root)
