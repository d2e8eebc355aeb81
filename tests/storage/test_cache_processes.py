"""Many processes that want one model at once."""

import errno
import os
import random
import sys
import time
import traceback

import pytest

from wmtp.storage.cache import Source, VerifiedCache
from wmtp.storage.cached import partial

NUM_PROCESSES = 8
SOURCES = [Source("s3://lab/model", f"shard-{n}", 300_000, '"v"') for n in range(3)]


def names(directory):
    return sorted(path.name for path in directory.iterdir())


def content(source):
    return random.Random(source.name).randbytes(source.size_bytes)


def fetch_all(root, log):
    """Get every file; a line in the log is a download."""
    cache = VerifiedCache(root)
    for source in SOURCES:
        data = content(source)

        def chunks(start, source=source, data=data):
            with log.open("a") as file:
                file.write(f"{source.name}\n")
            for position in range(start, len(data), 20_000):
                time.sleep(0.002)
                yield data[position : position + 20_000]

        path = cache.find(source) or cache.receive(source, chunks, sha256=None)
        assert path.read_bytes() == data
        assert cache.find(source) == path


def start(act):
    child = os.fork()
    if child == 0:
        status = 1
        try:
            act()
            status = 0
        finally:
            traceback.print_exception(sys.exception())  # shown when the test fails
            os._exit(status)
    return child


def all_succeed(root, log):
    children = [start(lambda: fetch_all(root, log)) for _ in range(NUM_PROCESSES)]
    return [os.waitpid(child, 0)[1] for child in children] == [0] * NUM_PROCESSES


def test_eight_processes_want_one_model_and_it_is_fetched_once(tmp_path):
    assert all_succeed(tmp_path / "cache", tmp_path / "log")
    assert sorted((tmp_path / "log").read_text().split()) == [source.name for source in SOURCES]
    assert names(tmp_path / "cache/parts") == []


def lie(*_):
    """Say yes to everybody, as some network disks do."""


def fail(*_):
    raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))


@pytest.mark.parametrize("flock", [lie, fail])
def test_where_locks_lie_or_fail_all_succeed_all_the_same(tmp_path, monkeypatch, flock):
    monkeypatch.setattr("fcntl.flock", flock)
    monkeypatch.setattr(partial, "_MARK_BYTES", 40_000)
    for attempt in range(3):
        root = tmp_path / f"cache-{attempt}"
        assert all_succeed(root, tmp_path / "log")
        assert sorted(names(root / "blobs")) == sorted(VerifiedCache(root).find(s).name for s in SOURCES)


def test_one_that_hangs_with_the_lock_does_not_stop_the_others(tmp_path, monkeypatch):
    monkeypatch.setattr("wmtp.storage.cache._PATIENCE_SECONDS", 0.2)
    cache, data = VerifiedCache(tmp_path / "cache"), content(SOURCES[0])

    def hanging(begin):
        yield data[:100]
        assert all_succeed(tmp_path / "cache", tmp_path / "log")
        yield data[100:]

    assert cache.receive(SOURCES[0], hanging, sha256=None).read_bytes() == data
