"""Processes that are killed while they write to a cache: nothing is lost, and nothing half-written is seen."""

import hashlib
import os
import random
import signal
import stat
import time

import pytest

from wmtp.storage.cache import Source, VerifiedCache
from wmtp.storage.cached import partial
from wmtp.storage.cached.sweeping import sweep_parts
from wmtp.storage.cached.upkeep import prune, remove, verify

SIZE = 200_000
NUM_KILLS = 200
KEPT = Source("s3://lab/kept", "model.safetensors", SIZE, '"kept"')


@pytest.fixture(autouse=True)
def _marks_are_near(monkeypatch):
    monkeypatch.setattr(partial, "_MARK_BYTES", 40_000)


def names(directory):
    return sorted(path.name for path in directory.iterdir())


def content(source):
    return random.Random(source.uri + source.name).randbytes(source.size_bytes)


def receive(cache, source, tell=lambda: None):
    data = content(source)

    def chunks(start):
        for position in range(start, len(data), 20_000):
            tell()
            yield data[position : position + 20_000]

    return cache.receive(source, chunks, sha256=None)


def killed_after(num_chunks, seconds, act):
    """Run something in a process of its own, and kill it so long after so many chunks have come."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            act(lambda: os.write(writing, b"."))
        finally:
            os._exit(1)
    os.close(writing)
    for _ in range(num_chunks):
        os.read(reading, 1)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    os.close(reading)
    assert os.WIFSIGNALED(status), "the process ended by itself, with an error"


def check_blobs(root):
    for path in root.glob("blobs/*"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o444
        assert hashlib.sha256(path.read_bytes()).hexdigest() == path.name


def files_of(number):
    return [Source(f"s3://lab/run-{number}", f"shard-{n}", SIZE, '"v"') for n in range(4)]


def receive_all(root, sources, tell):
    while True:
        for source in sources:
            receive(VerifiedCache(root), source, tell)
        sources = [Source(source.uri, source.name, SIZE, source.version + "x") for source in sources]


def test_two_hundred_kills_in_the_middle_of_downloads_lose_nothing(tmp_path):
    chance, whole, num_resumed = random.Random(7), {}, 0
    for number in range(NUM_KILLS):
        sources, seconds = files_of(number), chance.choice([0.0, 0.0, chance.uniform(0.0, 0.03)])
        killed_after(chance.randrange(25), seconds, lambda tell, s=sources: receive_all(tmp_path, s, tell))
        check_blobs(tmp_path)
        cache = VerifiedCache(tmp_path)
        assert all(cache.find(source) == path for source, path in whole.items())
        whole |= {source: path for source in sources if (path := cache.find(source))}
        interrupted = next((source for source in sources if source not in whole), sources[0])
        num_resumed += any((tmp_path / "parts").glob("*.journal"))
        whole[interrupted] = receive(cache, interrupted)
        assert whole[interrupted].read_bytes() == content(interrupted)
        _forget_others(tmp_path, whole, number)
    assert num_resumed > NUM_KILLS // 20
    for left in (tmp_path / "parts").iterdir():
        os.utime(left, (0, 0))  # what may still be in the making is spared for a minute
    sweep_parts(tmp_path / "parts", older_than_seconds=0)
    assert names(tmp_path / "parts") == []


def _forget_others(root, whole, number):
    """Keep the cache small, so that looking at all of it stays quick."""
    if number % 10 == 9:
        remove(VerifiedCache(root), {entry.source.uri for entry in VerifiedCache(root).entries()})
        whole.clear()


def change_for_ever(root, sources, tell):
    while True:
        cache = VerifiedCache(root)
        for source in sources:
            receive(cache, source, tell)
        remove(cache, [sources[0].uri])
        os.utime(cache.records.path(sources[2]), (1, 1))
        prune(cache, unused_for_seconds=3600)
        verify(cache)


def test_kills_in_the_middle_of_removing_lose_nothing_that_was_to_stay(tmp_path, monkeypatch):
    monkeypatch.setattr("wmtp.storage.cached.upkeep._YOUNG_SECONDS", -1)
    chance, sources = random.Random(8), [*files_of(0)[:2], *files_of(1)[:2]]
    kept = receive(VerifiedCache(tmp_path), KEPT)
    for _ in range(60):
        num_chunks, seconds = chance.choice([40, chance.randrange(40)]), chance.uniform(0.0, 0.03)
        killed_after(num_chunks, seconds, lambda tell: change_for_ever(tmp_path, sources, tell))
        check_blobs(tmp_path)
        cache = VerifiedCache(tmp_path)
        assert cache.find(KEPT) == kept
        for source in sources:
            assert receive(cache, source).read_bytes() == content(source)
    remove(cache, {source.uri for source in sources})
    prune(cache)
    assert names(tmp_path / "blobs") == [kept.name]
    assert len(list(tmp_path.glob("entries/*/*"))) == len(names(tmp_path / "receipts")) == 1
