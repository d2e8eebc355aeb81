"""Fetching into a directory and pushing from one, over a network that fails: whole and right, or not there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import wmtp
from faults.site import BUCKET, METADATA, WEIGHTS, Files, Site
from servers.faults import bit_flipped, denied, hung_up, reset, status
from servers.faulty import Fault
from servers.listings import HOSTILE_KEYS, listing_also
from wmtp.errors import ArrivalError, IntegrityError, NotFoundError, StorageError
from wmtp.transport.fetch import fetch_checkpoint
from wmtp.transport.push import push_checkpoint

KEY = f"model/{WEIGHTS}"


@pytest.fixture
def fetch(site: Site, tmp_path: Path) -> Callable[[], None]:
    """Fetches the checkpoint into `copy`, and sees that it is the one of the server."""

    def into_directory() -> None:
        fetch_checkpoint(site.uri, tmp_path / "copy")
        assert visible_files(tmp_path / "copy") == site.files

    return into_directory


def visible_files(directory: Path) -> Files:
    """What a person or a loader sees there."""
    found = [path for path in directory.rglob("*") if path.is_file()]
    named = {path.relative_to(directory).as_posix(): path.read_bytes() for path in found}
    return {name: data for name, data in named.items() if not name.startswith(".")}


@pytest.mark.parametrize("fault", [reset(after=50_000), status(503, "SlowDown")], ids=["reset", "503"])
def test_a_fetch_that_breaks_off_leaves_no_checkpoint_and_is_gone_on_with(
    site: Site, fetch: Callable[[], None], tmp_path: Path, fault: Fault
):
    site.server.fault(fault, key=KEY)
    with pytest.raises(StorageError, match=f"s3://{BUCKET}/{KEY}"), site.tried_for("0.5"):
        fetch()
    assert METADATA not in visible_files(tmp_path / "copy")
    site.server.heal()
    site.survives(fetch)


def test_a_fetch_of_damaged_bytes_is_refused(site: Site, fetch: Callable[[], None], tmp_path: Path):
    site.declare_digests()
    site.server.fault(bit_flipped(80_000), key=KEY)
    with pytest.raises((ArrivalError, IntegrityError), match=f"s3://{BUCKET}/{KEY}"):
        fetch()
    assert not {METADATA, WEIGHTS} & set(visible_files(tmp_path / "copy"))
    site.server.heal()
    site.survives(fetch)


@pytest.mark.parametrize("key", HOSTILE_KEYS.values(), ids=HOSTILE_KEYS)
def test_a_fetch_writes_nothing_outside_its_directory(site: Site, tmp_path: Path, key: str):
    targets = (tmp_path / "a" / "b" / number for number in ("1", "2"))
    site.server.fault(listing_also(site.server, [key]), method="LIST")
    site.survives_or_refuses(lambda: fetch_checkpoint(site.uri, next(targets)), StorageError, f"s3://{BUCKET}/model")
    assert visible_files(tmp_path / "a" / "b" / "2") == site.files
    assert not list(tmp_path.rglob("*outside*"))


@pytest.mark.parametrize("fault", [hung_up(), status(503, "SlowDown"), status(500, "InternalError")])
def test_a_push_goes_on_after_a_fault_that_passes(site: Site, fetch: Callable[[], None], tmp_path: Path, fault: Fault):
    fetch()
    site.server.fault(fault, method="PUT", times=2)
    site.survives(lambda: push_checkpoint(tmp_path / "copy", f"s3://{BUCKET}/pushed"))
    pushed = site.server.objects(BUCKET)
    assert {name: pushed[f"pushed/{name}"] for name in site.files} == site.files


def test_a_push_that_fails_leaves_no_checkpoint_and_can_be_done_again(
    site: Site, fetch: Callable[[], None], tmp_path: Path
):
    fetch()

    def push() -> None:
        push_checkpoint(tmp_path / "copy", f"s3://{BUCKET}/pushed")

    site.server.fault(denied("AccessDenied"), method="PUT", key=f"*{WEIGHTS}")
    before = set(site.server.objects(BUCKET))
    site.refuses(push, StorageError, f"s3://{BUCKET}/pushed", "AccessDenied", recovers=lambda: None)
    assert f"pushed/{METADATA}" not in set(site.server.objects(BUCKET)) - before
    with pytest.raises(NotFoundError, match=f"s3://{BUCKET}/pushed/{METADATA}"):
        wmtp.load(f"s3://{BUCKET}/pushed")
    site.survives(push)
    assert site.server.objects(BUCKET)[f"pushed/{METADATA}"] == site.files[METADATA]
