"""Processes that are killed in the middle, and many that want the same: through the network, into one cache."""

from __future__ import annotations

import random
import signal
import time

import pytest

from faults.child import start
from faults.site import WEIGHTS, Site
from servers.faults import slow, stalled

KEY = f"model/{WEIGHTS}"
PROGRAM = "sys.exit(not fetch(*sys.argv[1:]))"


def kill_somewhere(site: Site, after_seconds: float) -> None:
    """Let a process fetch, and kill it so long after its first request for the weights."""
    asked = len(site.server.asked("GET", KEY))
    with start(PROGRAM, site.uri, WEIGHTS) as process:
        while len(site.server.asked("GET", KEY)) == asked and process.poll() is None:
            time.sleep(0.002)
        time.sleep(after_seconds)
        process.kill()


@pytest.mark.parametrize("kills", [4, pytest.param(100, marks=pytest.mark.slow)])
def test_a_killed_download_leaves_nothing_half_done_and_is_gone_on_with(large_site: Site, kills: int):
    site, chance = large_site, random.Random(kills)
    site.server.fault(slow(0.002), key=KEY)
    for _ in range(kills):
        site.survives(lambda: kill_somewhere(site, chance.uniform(0, 0.3)))
    site.server.heal()
    site.survives(site.load)
    parts = [path for path in (site.cache / "parts").iterdir() if path.suffix == ".part"]
    assert parts == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_download_ends_and_is_gone_on_with(large_site: Site, number: signal.Signals):
    site = large_site
    site.server.fault(stalled(after=1_000_000), key=KEY)

    def interrupt() -> None:
        with start(PROGRAM, site.uri, WEIGHTS) as process:
            while not site.server.asked("GET", KEY):
                time.sleep(0.01)
            process.send_signal(number)
            assert "fetched /" not in process.communicate(timeout=300)[0]

    with site.tried_for("1"):
        site.survives(interrupt)
    site.server.heal()
    site.survives(site.load)


def test_eight_processes_that_want_one_model_fetch_it_once(large_site: Site):
    site = large_site
    site.server.fault(slow(0.002), key=KEY)
    processes = [start(PROGRAM, site.uri, WEIGHTS) for _ in range(8)]
    said = [process.communicate(timeout=600)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * 8, said
    assert len(set(said)) == 1
    size = len(site.files[WEIGHTS])
    # Where the first connection is found to be slow, what is on its way through it is asked for again.
    assert size <= sum(request.sent_bytes for request in site.server.asked("GET", KEY)) < 2 * size
    site.survives(site.load)
