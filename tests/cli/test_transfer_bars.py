"""A bar on a terminal while something is transferred; nothing of it elsewhere."""

from __future__ import annotations

import io
import os
import pty
import subprocess
import sys

import pytest

from checkpoints import write_llama_checkpoint
from servers.seaweed import upload_directory
from wmtp.cli.progress import TransferBars
from wmtp.storage.progress import transferring, watching


@pytest.fixture
def address(seaweed, s3_bucket, tmp_path):
    return upload_directory(seaweed.client(), s3_bucket, "llama", write_llama_checkpoint(tmp_path / "llama"))


def run_on_a_terminal(*words: str) -> tuple[str, str]:
    """What a command prints on stdout, and on the terminal that stderr is."""
    ours, theirs = pty.openpty()
    done = subprocess.run(
        [sys.executable, "-m", "wmtp.cli.main", *words],
        stdout=subprocess.PIPE, stderr=theirs, check=True, env={**os.environ, "TERM": "xterm"},
    )  # fmt: skip
    os.write(theirs, b".")  # reading what nobody wrote to fails
    printed = os.read(ours, 1 << 20).decode()
    os.close(theirs)
    os.close(ours)
    return done.stdout.decode(), printed.removesuffix(".")


def test_a_fetch_draws_a_bar_on_the_terminal_and_none_into_its_result(address):
    result, drawn = run_on_a_terminal("fetch", address)
    assert address in drawn
    assert "\x1b[2K" in drawn  # the bar's line is cleared
    assert "\x1b" not in result


def test_quiet_draws_nothing(address):
    assert run_on_a_terminal("--quiet", "fetch", address)[1] == ""


def test_without_a_terminal_no_bar_is_wanted(monkeypatch):
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    assert not TransferBars.is_wanted()


def test_bars_of_several_transfers_come_and_go():
    bars = TransferBars()
    with watching(bars), transferring("one", {"a": 4}) as one, transferring("two") as two:
        one.advance(4)
        two.advance(1)
        assert len(bars._tasks) == 2
    assert bars._tasks == {}
    assert bars._bars is None
