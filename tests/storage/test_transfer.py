"""Ranges of objects arrive in order, in bounded memory, exactly as they are stored."""

from __future__ import annotations

import random
import uuid
from contextlib import suppress

import pytest

from wmtp.errors import ChangedError, StorageError
from wmtp.storage import order
from wmtp.storage import transfer as transfer_module
from wmtp.storage.client import ObjectClient
from wmtp.storage.progress import transferring
from wmtp.storage.store import Piece
from wmtp.storage.transfer import OptimizedS3Transfer, num_connections
from wmtp.storage.uri import parse_uri

DATA = random.Random(0).randbytes(100_000)


@pytest.fixture
def client(monkeypatch) -> ObjectClient:
    monkeypatch.setattr(transfer_module, "_PART_BYTES", 7_000)
    return ObjectClient(parse_uri(f"memory://b{uuid.uuid4().hex}"))


@pytest.mark.parametrize("num_files", [1, 4], ids=["many connections", "one connection"])
@pytest.mark.parametrize("start", [0, 1, 6_999, 99_999, 100_000])
@pytest.mark.parametrize("patience", [-1.0, 9.0], ids=["waiting", "busy"])
def test_a_stream_gives_every_byte_from_its_start_on_in_order(client, start, num_files, patience, monkeypatch):
    monkeypatch.setattr(order, "_LONG_SECONDS", patience)
    info = client.put("k", DATA)
    with transferring("k") as progress, OptimizedS3Transfer(client, progress, num_files=num_files) as t:
        assert b"".join(t.stream(info, start)) == DATA[start:]
    assert progress.num_done == len(DATA) - start


def test_pieces_of_several_objects_are_filled_in_order(client):
    infos = {name: client.put(name, DATA[:size]) for name, size in (("a", 50_000), ("b", 100_000))}
    wanted = [("a", 0, 10_000), ("b", 5, 20_000), ("a", 49_999, 1), ("b", 7, 0), ("b", 60_000, 40_000)]
    pieces = [(infos[name], Piece(name, start, memoryview(bytearray(length)))) for name, start, length in wanted]
    with transferring("m") as progress, OptimizedS3Transfer(client, progress) as transfer:
        filled = list(transfer.fill(iter(pieces)))
    assert filled == [piece for _, piece in pieces]
    assert [bytes(p.buffer) for p in filled] == [DATA[start : start + length] for _, start, length in wanted]


def test_only_a_few_pieces_are_begun_before_the_first_is_taken(client):
    info, begun = client.put("k", DATA), []

    def pieces():
        for start in range(0, 90_000, 1_000):
            begun.append(start)
            yield info, Piece("k", start, memoryview(bytearray(1_000)))

    with transferring("m") as progress, OptimizedS3Transfer(client, progress) as transfer:
        filled = transfer.fill(pieces())
        assert next(filled).start == 0
        assert len(begun) <= 2 * num_connections() + 1
        assert len(list(filled)) == 89


def test_another_version_of_the_object_is_refused(client):
    info = client.put("k", DATA)
    client.put("k", DATA[::-1])
    with (
        pytest.raises(ChangedError, match="/k"),
        transferring("k") as progress,
        OptimizedS3Transfer(client, progress) as transfer,
    ):
        list(transfer.stream(info))


def test_when_one_part_of_a_transfer_fails_the_others_stop(client):
    info = client.put("k", DATA)
    with transferring("k") as progress:
        transfer = OptimizedS3Transfer(client, progress)
        with suppress(KeyError), transfer:
            raise KeyError
        with pytest.raises(StorageError, match="given up"):
            list(transfer.stream(info))
