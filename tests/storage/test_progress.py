"""Whoever listens is told how far a transfer is; else there is a line in the log."""

from __future__ import annotations

import logging

import pytest

from wmtp.storage import progress
from wmtp.storage.progress import Transfer, transferring, watching


def test_a_listener_hears_of_every_step_and_of_the_end(monkeypatch):
    monkeypatch.setattr(progress, "_PAUSE_SECONDS", 0.0)
    heard: list[tuple[int, bool]] = []
    with (
        watching(lambda transfer: heard.append((transfer.num_done, transfer.is_over))),
        transferring("m", {"a": 4, "b": 6}) as transfer,
    ):
        transfer.advance(4)
        transfer.advance(6)
    assert heard == [(4, False), (10, False), (10, True)]


def test_a_listener_is_not_called_for_each_of_many_chunks():
    heard: list[int] = []
    with watching(lambda transfer: heard.append(transfer.num_done)), transferring("m") as transfer:
        for _ in range(10_000):
            transfer.advance(1)
    assert len(heard) < 1_000
    assert heard[-1] == 10_000


def test_the_end_is_told_also_when_the_transfer_fails():
    heard: list[bool] = []
    with (
        pytest.raises(OSError, match="gone"),
        watching(lambda transfer: heard.append(transfer.is_over)),
        transferring("m", {"a": 10}),
    ):
        raise OSError("gone")
    assert heard == [True]


def test_without_a_listener_what_takes_long_is_logged_with_rate_and_time_left(caplog, monkeypatch):
    monkeypatch.setattr(progress, "_LOG_SECONDS", 0.0)
    with (
        caplog.at_level(logging.INFO, "wmtp"),
        transferring("s3://lab/m", {"a": 1_000_000, "b": 1_000_000, "c": 2_000_000}) as transfer,
    ):
        transfer.advance(1_000_000)
    first, *_, last = caplog.messages
    assert first.startswith("s3://lab/m: 1.0 of 4.0 MB, ")
    assert first.endswith(" s left")
    assert last.startswith("s3://lab/m: 3 files, 1.0 MB in ")


def test_rate_and_time_left_follow_from_bytes_and_seconds(monkeypatch):
    now = iter([100.0, 102.0, 102.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(now))
    transfer = Transfer("m", {"a": 300}, lambda _: None)
    transfer.num_done = 100
    assert transfer.rate == 50
    assert transfer.seconds_left == 4
