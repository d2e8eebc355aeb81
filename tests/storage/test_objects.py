"""A prefix in an object store behaves as a directory does: names, versions, what is read and what is kept."""

from __future__ import annotations

import hashlib
import logging
import uuid

import pytest

from servers.environment import use_server
from wmtp.errors import ArrivalError, ChangedError, IntegrityError, NotFoundError, StorageError
from wmtp.storage.cache import VerifiedCache
from wmtp.storage.client import ObjectClient, ObjectInfo
from wmtp.storage.objects import ObjectStore
from wmtp.storage.store import FileInfo, Piece
from wmtp.storage.uri import ModelURI, parse_uri


@pytest.fixture
def uri() -> ModelURI:
    return parse_uri(f"memory://b{uuid.uuid4().hex}/lab/model")


@pytest.fixture
def client(uri) -> ObjectClient:
    client = ObjectClient(uri)
    for name, data in {"config.json": b"{}", "weights": b"0123456789", "inner/file": b"x"}.items():
        client.put(f"lab/model/{name}", data)
    client.put("lab/model-old/config.json", b"another model")
    return client


@pytest.fixture
def store(uri, client, tmp_path) -> ObjectStore:
    return ObjectStore(uri, cache=VerifiedCache(tmp_path / "cache"), client=client)


def test_a_listing_has_what_is_below_the_prefix_and_nothing_of_its_siblings(store):
    assert store.list_files() == [FileInfo("config.json", 2), FileInfo("inner/file", 1), FileInfo("weights", 10)]


def test_an_empty_prefix_is_named(client):
    with pytest.raises(NotFoundError, match=r"/lab/mod: nothing is stored below it"):
        ObjectStore(parse_uri(f"{client.uri}/lab/mod"), cache=None, client=client).list_files()


def test_hidden_files_are_left_out_silently_and_ill_named_ones_by_name(store, client, caplog):
    client.put("lab/model/.cache/x", b"1")
    client.put("lab/model/a\\b", b"1")
    with caplog.at_level(logging.WARNING, "wmtp"):
        names = [info.name for info in store.list_files()]
    assert names == ["config.json", "inner/file", "weights"]
    assert caplog.messages == [f"{store.uri}: left out, for their names: 'a\\\\b'"]


@pytest.mark.parametrize("name", ["../model-old/config.json", "/etc/passwd", "a//b", ".hidden", "a\0b"])
@pytest.mark.parametrize("read", ["stat", "read_bytes", "read_range", "local_paths", "put"])
def test_a_name_that_breaks_the_path_rule_is_refused_before_any_request(store, name, read):
    arguments = {"read_bytes": {"max_bytes": 9}, "read_range": {"start": 0, "length": 1}, "put": {"source": b"x"}}
    with pytest.raises(StorageError, match="the file name "):
        getattr(store, read)([name] if read == "local_paths" else name, **arguments.get(read, {}))


def test_reading_one_small_file_asks_for_no_listing(store, client, monkeypatch):
    monkeypatch.setattr(client, "list", None)
    assert store.read_bytes("config.json", max_bytes=10) == b"{}"


def test_what_changed_since_it_was_first_seen_is_refused_with_both_versions(store, client):
    store.read_bytes("config.json", max_bytes=10)
    client.put("lab/model/config.json", b'{"a": 1}')
    with pytest.raises(ChangedError, match=r"lab/model/config\.json.*ETag.*ETag"):
        store.list_files()
    with pytest.raises(ChangedError, match="ETag"):
        store.read_bytes("config.json", max_bytes=10)


def test_a_file_is_fetched_once_and_read_from_the_cache_from_then_on(store, client, uri, monkeypatch):
    assert store.bytes_to_fetch(["weights", "inner/file"]) == 11
    path = store.local_paths(["weights"])["weights"]
    assert path.read_bytes() == b"0123456789"
    assert path.name == hashlib.sha256(b"0123456789").hexdigest()
    assert store.bytes_to_fetch(["weights", "inner/file"]) == 1
    later = ObjectStore(uri, cache=store._cache, client=client)
    later.list_files()
    monkeypatch.setattr(client, "stream", None)
    assert later.local_paths(["weights"]) == {"weights": path}
    assert later.read_range("weights", 2, 3) == b"234"
    assert later.read_bytes("weights", max_bytes=10) == b"0123456789"


def test_without_a_cache_files_have_no_path_and_the_refusal_says_what_to_leave_out(uri, client):
    store = ObjectStore(uri, cache=None, client=client)
    assert not store.has_paths
    with pytest.raises(StorageError, match="have no path on this machine") as refusal:
        store.local_paths(["weights"])
    assert "--no-cache" in refusal.value.hint


def test_pieces_are_filled_whether_or_not_there_is_a_cache(store):
    buffer = bytearray(4)
    assert [piece.start for piece in store.fill([Piece("weights", 3, memoryview(buffer))])] == [3]
    assert buffer == b"3456"


def test_a_file_with_another_digest_than_expected_never_gets_a_path(store):
    store.expect({"weights": "0" * 64})
    with pytest.raises(IntegrityError, match="sha256:" + "0" * 64):
        store.local_paths(["weights"])
    assert list(store._cache.blobs.directory.iterdir()) == []
    with pytest.raises(ArrivalError, match="is expected"):
        store.confirm("weights", "sha256:" + "1" * 64)


def test_a_file_that_the_cache_has_is_held_to_a_digest_that_is_learnt_later(store):
    store.local_paths(["weights"])
    store.expect({"weights": "0" * 64})
    with pytest.raises(IntegrityError, match="is expected"):
        store.local_paths(["weights"])


def test_bytes_that_were_shown_before_must_stand_in_the_file_that_arrives(store, client, monkeypatch):
    honest = client.stream
    monkeypatch.setattr(client, "stream", lambda *_: iter([b"lies"]))
    assert store.read_range("weights", 2, 4) == b"lies"
    monkeypatch.setattr(client, "stream", honest)
    with pytest.raises(IntegrityError, match="bytes 2 to 6 are not what was read before"):
        store.local_paths(["weights"])


def test_a_child_shares_the_client_and_reads_further_down(store, client):
    child = store.child("inner")
    assert child.list_files() == [FileInfo("file", 1)]
    assert str(child.uri) == f"{store.uri}/inner"
    assert child._client is client


def test_what_is_written_is_there_and_what_is_deleted_is_not(store):
    assert store.put("new/file", b"abc") == FileInfo("new/file", 3)
    assert store.read_bytes("new/file", max_bytes=9) == b"abc"
    store.delete("new/file")
    assert not store.has("new/file")


def test_many_ranges_are_read_at_once_in_their_order(store):
    wanted = [("weights", start, 2) for start in range(8)]
    assert store.read_ranges(wanted) == [b"0123456789"[start : start + 2] for start in range(8)]


def test_what_another_process_put_at_a_memory_address_is_not_found_in_the_cache(uri, client, tmp_path):
    ObjectStore(uri, cache=VerifiedCache(tmp_path / "cache"), client=client).local_paths(["weights"])
    later = ObjectStore(uri, cache=VerifiedCache(tmp_path / "cache"), client=client)
    assert later.bytes_to_fetch(["weights"]) == 10


def test_a_bucket_of_the_same_name_at_another_service_is_another_bucket(monkeypatch, tmp_path):
    versions = set()
    for endpoint in ("http://one.example:1", "http://two.example:2"):
        use_server(monkeypatch, endpoint, home=tmp_path)
        versions.add(ObjectClient(parse_uri("s3://models/m")).version_of(ObjectInfo("m/weights", 10, '"etag"')))
    assert len(versions) == 2
    assert "example" not in "".join(versions)
