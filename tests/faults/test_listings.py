"""What is not there, and listings that are hostile: named, bounded, and nothing is written outside the target."""

from __future__ import annotations

from pathlib import Path

import pytest

import wmtp
from faults.site import BUCKET, METADATA, Site
from servers.faults import page_of_html
from servers.listings import (
    HOSTILE_KEYS,
    listing_also,
    listing_never_begins,
    listing_of,
    listing_of_text,
    listing_repeats,
)
from wmtp.errors import NotFoundError, StorageError
from wmtp.storage.opening import open_store


def test_a_bucket_that_is_not_there_is_named(site: Site):
    for act in (lambda: wmtp.load("s3://none-such/model"), lambda: open_store("s3://none-such").list_files()):
        site.refuses(act, NotFoundError, "s3://none-such", "(?i)bucket", recovers=site.load)


def test_a_file_that_is_not_there_is_named(site: Site):
    with pytest.raises(NotFoundError, match=f"s3://{BUCKET}/model/none.json"):
        open_store(site.uri).read_bytes("none.json", max_bytes=100)
    with pytest.raises(NotFoundError, match=f"s3://{BUCKET}/model/none.json"):
        open_store(site.uri).local_paths(["none.json"])


def test_a_prefix_with_nothing_below_it_is_named(site: Site):
    site.server.put(BUCKET, "empty/", b"")
    for prefix in ("nothing", "empty"):
        for act in (wmtp.load, wmtp.load_metadata, lambda uri: open_store(uri).list_files()):
            with pytest.raises(NotFoundError, match=f"s3://{BUCKET}/{prefix}") as caught:
                act(f"s3://{BUCKET}/{prefix}")
            assert caught.value.hint


def test_a_sibling_with_a_longer_name_is_another_checkpoint(site: Site):
    site.store_files({"config.json": b"{}", "old.json": b"{}"}, prefix="model-old")
    assert {info.name for info in open_store(site.uri).list_files()} == set(site.files)
    site.survives(site.load)
    with pytest.raises(NotFoundError, match=f"s3://{BUCKET}/mod"):
        open_store(f"s3://{BUCKET}/mod").list_files()


def test_directory_markers_are_no_files(site: Site):
    for marker in ("model/", "model/sub/", "model/sub"):
        site.server.put(BUCKET, marker, b"")
    site.server.put(BUCKET, "model/sub/file", b"abc")
    names = {info.name for info in open_store(site.uri).list_files()}
    assert names - {"sub"} == {*site.files, "sub/file"}
    site.server.delete(BUCKET, "model/sub")
    site.survives(site.load)


@pytest.mark.parametrize("key", HOSTILE_KEYS.values(), ids=HOSTILE_KEYS)
def test_a_hostile_key_is_left_out_or_refused_and_never_a_path(site: Site, tmp_path: Path, key: str):
    site.server.fault(listing_also(site.server, [key]), method="LIST")
    before = set(tmp_path.parent.rglob("outside*"))
    site.survives_or_refuses(site.list_and_fetch, StorageError)
    assert set(tmp_path.parent.rglob("outside*")) == before
    assert not Path("/etc/outside.json").exists()
    assert not any(ord(character) < 0x20 and character != "\n" for character in site.output())


def test_many_hostile_keys_do_not_hide_the_checkpoint(site: Site):
    plain = [HOSTILE_KEYS[kind] for kind in ("a backslash", "a percent escape", "300 bytes", "a drive")]
    site.server.fault(listing_also(site.server, plain), method="LIST")
    site.survives(site.load)
    assert "left out" in site.output()


def test_keys_that_were_not_asked_for_are_not_of_the_checkpoint(site: Site):
    foreign = ["other/abcdef.json", "model-old/abcdef.json", "mod", "model", "x" * 20]
    site.server.fault(listing_also(site.server, foreign), method="LIST")
    assert {info.name for info in open_store(site.uri).list_files()} == set(site.files)


@pytest.mark.parametrize(
    "fault", [listing_repeats("model"), listing_never_begins()], ids=["the same page", "empty pages"]
)
def test_a_listing_without_an_end_is_given_up(site: Site, fault):
    site.server.fault(fault, method="LIST")
    site.refuses(lambda: open_store(site.uri).list_files(), StorageError, f"s3://{BUCKET}/model")
    site.server.fault(fault, method="LIST")
    site.refuses(site.load, StorageError, f"s3://{BUCKET}/model")


def test_a_listing_of_a_million_is_cut_off_at_the_most_that_a_checkpoint_may_have(site: Site):
    site.server.fault(listing_of(1_000_000, "model"), method="LIST")
    site.refuses(lambda: open_store(site.uri).list_files(), StorageError, "more than 100,000 objects", timeout="600")


@pytest.mark.parametrize(
    "fault",
    [
        listing_of_text("<ListBucketResult><Contents><Key>"),
        listing_of_text(""),
        listing_of_text("<a/>"),
        page_of_html(),
    ],
    ids=["broken XML", "nothing", "other XML", "HTML"],
)
def test_a_listing_that_is_none_is_an_error(site: Site, fault):
    site.server.fault(fault, method="LIST")
    site.refuses(lambda: open_store(site.uri).list_files(), (StorageError, NotFoundError), f"s3://{BUCKET}/model")
    site.survives(lambda: wmtp.load_metadata(f"{site.uri}"))
    assert site.server.asked("GET", f"model/{METADATA}")
