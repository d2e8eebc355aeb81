"""Connections that break, stall or are refused: tried again, gone on with, and in the end an error with both counts."""

from __future__ import annotations

import threading
import time

import pytest

import wmtp
from faults.site import BUCKET, METADATA, WEIGHTS, Site
from servers.faults import endless, hung_up, overlong, reset, stalled, status, truncated, unanswered
from servers.faulty import Fault
from wmtp.errors import StorageError
from wmtp.storage.opening import open_store

KEY = f"model/{WEIGHTS}"

ONCE = {
    "the connection is reset": reset(after=50_000),
    "the connection is reset before a byte": reset(),
    "the connection ends": truncated(after=50_000),
    "the connection is reset before the answer": hung_up(),
    "the body stalls": stalled(after=50_000),
    "the answer stalls": unanswered(),
    "500": status(500, "InternalError"),
    "503": status(503, "SlowDown"),
    "429": status(429, "TooManyRequests"),
    "the body is too long": overlong(1000),
}
ALWAYS = {name: fault for name, fault in ONCE.items() if name != "the body is too long"}


@pytest.mark.parametrize("fault", ONCE.values(), ids=ONCE)
def test_a_fault_that_passes_is_survived(site: Site, monkeypatch: pytest.MonkeyPatch, fault: Fault):
    monkeypatch.setattr("wmtp.storage.requests.retries._LONGEST_SILENCE_SECONDS", 0.5)
    site.server.fault(fault, key="model/*", times=1)
    site.survives(site.load)
    site.server.heal()
    site.server.fault(fault, key=KEY, times=1)
    site.survives(lambda: site.load(cache=False))


def test_six_refusals_in_a_row_are_survived(site: Site):
    site.server.fault(status(503, "SlowDown"), key=KEY, times=6)
    site.survives(site.load)


def test_a_transfer_goes_on_where_it_broke_off_in_the_same_version(large_site: Site):
    site, etag = large_site, large_site.server.etag(BUCKET, KEY)
    site.server.fault(reset(after=1_000_000), key=KEY, skip=3, times=3)
    site.survives(site.fetch)
    requests, size = site.server.asked("GET", KEY), len(site.files[WEIGHTS])
    assert {request.if_match for request in requests} == {etag}
    assert all(request.range for request in requests)
    # What is in flight when a connection is reset may be lost: at most a socket's buffers for each of the three.
    assert sum(request.sent_bytes for request in requests) < size + 3 * 1_100_000


@pytest.mark.parametrize("fault", ALWAYS.values(), ids=ALWAYS)
def test_a_fault_that_stays_is_an_error_that_counts_bytes(site: Site, fault: Fault):
    site.server.fault(fault, key=KEY)
    size = len(site.files[WEIGHTS])
    site.refuses(site.load, StorageError, f"s3://{BUCKET}/{KEY}")
    site.server.fault(fault, key=KEY)
    error = site.refuses(lambda: site.fetch_anew(WEIGHTS), StorageError, f"s3://{BUCKET}/{KEY}", f"{size:,}")
    assert "bytes" in str(error)


@pytest.mark.parametrize("fault", [overlong(1000), endless()], ids=["too long", "endless"])
def test_of_a_body_that_is_always_too_long_no_byte_too_many_is_used(site: Site, fault: Fault):
    for key in (METADATA, WEIGHTS):
        site.server.fault(fault, key=f"model/{key}")
    outcome = site.survives_or_refuses(site.load, StorageError, f"s3://{BUCKET}/model/")
    # Cut off, not read to the end: an endless body fills the buffers of a connection, and no memory.
    assert max(outcome) < 50_000_000


@pytest.mark.parametrize("fault", [status(503, "SlowDown"), unanswered(), hung_up()], ids=["503", "stall", "reset"])
def test_a_small_file_or_a_listing_that_cannot_be_had_is_named(site: Site, fault: Fault):
    for method in ("GET", "HEAD"):
        site.server.fault(fault, method=method, key=f"model/{METADATA}")
    site.refuses(lambda: wmtp.load_metadata(site.uri), StorageError, f"s3://{BUCKET}/model/{METADATA}")
    site.server.fault(fault, method="LIST")
    site.refuses(lambda: open_store(site.uri).list_files(), StorageError, f"s3://{BUCKET}/model")


def test_a_killed_server_that_comes_back_is_waited_for(large_site: Site):
    site = large_site
    site.server.fault(stalled(after=100_000), key=KEY, times=1)

    def restart() -> None:
        while not site.server.asked("GET", KEY):
            time.sleep(0.01)
        site.server.kill()
        time.sleep(0.3)
        site.server.start()

    thread = threading.Thread(target=restart)
    thread.start()
    site.survives(site.fetch)
    thread.join()


def test_a_server_that_is_gone_is_an_error(site: Site):
    site.server.kill()
    try:
        with pytest.raises(StorageError, match=f"s3://{BUCKET}/model"), site.tried_for("0.5"):
            site.load()
    finally:
        site.server.start()
    site.survives(site.load)


def test_how_long_to_try_is_said_by_the_environment(site: Site, monkeypatch: pytest.MonkeyPatch):
    site.server.fault(status(503, "SlowDown"), method="*")
    site.refuses(site.load, StorageError, "WMTP_TRANSFER_TIMEOUT")
    monkeypatch.setenv("WMTP_TRANSFER_TIMEOUT", "soon")
    with pytest.raises(wmtp.WmtpError, match="WMTP_TRANSFER_TIMEOUT is 'soon'"):
        site.load()
