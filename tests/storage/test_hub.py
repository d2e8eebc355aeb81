import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from huggingface_hub import constants

from servers.hub import Repository, hub_server
from wmtp.errors import IntegrityError, StorageError
from wmtp.storage.hub import open_hub
from wmtp.storage.progress import watching
from wmtp.storage.requests import hub_client
from wmtp.storage.requests.hub_client import HubClient
from wmtp.storage.store import FileInfo, Piece
from wmtp.storage.uri import parse_uri

LARGE = bytes(range(256)) * 20
SHA256 = hashlib.sha256(LARGE).hexdigest()
FILES = {"config.json": b"{}", "model.safetensors": LARGE, "sub/part.bin": b"0123456789", ".gitattributes": b"x"}


@pytest.fixture
def hub(monkeypatch, tmp_path):
    with hub_server(monkeypatch, tmp_path) as server:
        server.repositories["org/name"] = Repository()
        server.repositories["org/name"].commit(FILES)
        yield server


@pytest.fixture
def repository(hub):
    return hub.repositories["org/name"]


def opened(uri="hf://org/name", **options):
    return open_hub(parse_uri(uri), **options)


def test_the_files_of_all_pages_are_listed_with_their_sizes_without_hidden_ones_and_directories(hub, repository):
    repository.commit(FILES | {f"shard-{number}": b"x" * number for number in range(12)})
    shards = [FileInfo(f"shard-{number}", number) for number in range(12)]
    others = [FileInfo("config.json", 2), FileInfo("model.safetensors", len(LARGE)), FileInfo("sub/part.bin", 10)]
    assert opened().list_files() == sorted([*others, *shards], key=lambda info: info.name)
    assert sum("/tree/" in path for path in hub.asked()) == 4


def test_ranges_are_read_without_moving_the_file(hub):
    store = opened()
    assert store.read_range("model.safetensors", 300, 5) == LARGE[300:305]
    assert store.read_ranges([("sub/part.bin", 3, 2), ("model.safetensors", 0, 4)]) == [b"34", LARGE[:4]]
    assert store.bytes_to_fetch(["config.json"]) == 2
    assert not Path(constants.HF_HUB_CACHE).exists()


def test_a_small_file_that_was_read_once_is_in_the_cache(hub):
    assert opened().read_bytes("config.json", max_bytes=2) == b"{}"
    assert opened().bytes_to_fetch(["config.json"]) == 0


def test_a_file_larger_than_its_kind_is_refused_unread(hub):
    with pytest.raises(StorageError, match=r"part\.bin: 10 bytes, more than the 9 allowed"):
        opened().read_bytes("sub/part.bin", max_bytes=9)
    assert not any("/resolve/" in path for path in hub.asked())


def test_files_are_fetched_into_the_cache_of_huggingface_hub_once(hub, repository):
    names = ["config.json", "model.safetensors"]
    assert opened().bytes_to_fetch(names) == 2 + len(LARGE)
    paths = opened().local_paths(names)
    snapshot = f"{constants.HF_HUB_CACHE}/models--org--name/snapshots/{repository.revisions['main']}"
    assert {name: str(path) for name, path in paths.items()} == {name: f"{snapshot}/{name}" for name in names}
    assert paths["model.safetensors"].read_bytes() == LARGE
    hub.requests.clear()
    store = opened()
    assert (store.bytes_to_fetch(names), store.local_paths(names)) == (0, paths)
    assert store.read_range("model.safetensors", 1, 2) == LARGE[1:3]
    assert not any("/resolve/" in path for path in hub.asked())


def test_all_files_are_of_the_commit_that_the_branch_meant_at_first(hub, repository):
    store = opened()
    assert store.read_bytes("config.json", max_bytes=9) == b"{}"
    repository.commit(FILES | {"config.json": b'{"new": 1}', "sub/part.bin": b"abcdefghij"})
    assert store.read_bytes("sub/part.bin", max_bytes=99) == b"0123456789"
    assert store.local_paths(["config.json"])["config.json"].read_bytes() == b"{}"
    assert opened().read_bytes("config.json", max_bytes=99) == b'{"new": 1}'


def test_threads_that_share_a_client_resolve_a_branch_once(hub):
    client = HubClient(parse_uri("hf://org/name"))
    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(lambda _: client.commit, range(8)))) == 1
    assert sum("/revision/" in path for path in hub.asked()) == 1


def test_branches_tags_and_commits_can_be_named(hub, repository):
    first = repository.revisions["main"]
    repository.commit(FILES | {"config.json": b"[]"}, branch="refs/pr/1")
    assert opened("hf://org/name@refs/pr/1").read_bytes("config.json", max_bytes=9) == b"[]"
    assert opened(f"hf://org/name@{first}").read_bytes("config.json", max_bytes=9) == b"{}"


def test_a_damaged_large_file_is_fetched_once_more(hub):
    hub.damaged[SHA256] = 1
    assert opened().local_paths(["model.safetensors"])["model.safetensors"].read_bytes() == LARGE


def test_a_large_file_that_stays_damaged_is_refused_with_both_digests_and_not_kept(hub):
    hub.damaged[SHA256] = 2
    found = hashlib.sha256(bytes([LARGE[0] ^ 1]) + LARGE[1:]).hexdigest()
    with pytest.raises(IntegrityError, match=f"what arrived has sha256:{found}, the Hub states sha256:{SHA256}"):
        opened().local_paths(["model.safetensors"])
    assert opened().bytes_to_fetch(["model.safetensors"]) == len(LARGE)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_file_that_is_not_what_the_checkpoint_declares_is_refused(hub, name):
    store = opened()
    store.expect({name: "0" * 64})
    found = hashlib.sha256(FILES[name]).hexdigest()
    with pytest.raises(IntegrityError, match=f"it has sha256:{found}, sha256:{'0' * 64} is expected"):
        store.local_paths([name])


def test_what_the_hub_states_is_expected_of_a_file_that_is_read_into_memory(hub):
    store = opened(cache=False)
    assert store.expected("model.safetensors") == f"sha256:{SHA256}"
    assert store.expected("config.json") is None


def test_without_a_cache_pieces_are_read_into_memory_and_nothing_is_kept(hub):
    store = opened(cache=False)
    pieces = [Piece("model.safetensors", start, memoryview(bytearray(1000))) for start in (0, 4000, 1000)]
    assert [bytes(piece.buffer) for piece in store.fill(pieces)] == [LARGE[s : s + 1000] for s in (0, 4000, 1000)]
    assert not store.has_paths
    assert store.bytes_to_fetch(["config.json"]) == 2
    with pytest.raises(StorageError, match="no path on this machine"):
        store.local_paths(["config.json"])
    assert not Path(constants.HF_HUB_CACHE).exists()


def test_a_stream_goes_on_where_the_connection_broke_off(hub):
    hub.broken[SHA256] = [1500]
    assert b"".join(map(bytes, opened().stream("model.safetensors", 10))) == LARGE[10:]
    assert len([path for path in hub.asked() if path == f"/{SHA256}"]) == 2


def test_a_stream_that_breaks_off_often_but_goes_on_is_not_given_up(hub, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(hub_client.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(hub_client.time, "sleep", lambda seconds: now.append(now.pop() + seconds))
    monkeypatch.setenv("WMTP_TRANSFER_TIMEOUT", "10")
    hub.broken[SHA256] = [100] * 20
    assert opened().read_range("model.safetensors", 0, 3000) == LARGE[:3000]
    assert now[0] > 10


def test_a_server_that_ignores_ranges_is_refused_rather_than_believed(hub):
    hub.has_ranges = False
    with pytest.raises(StorageError, match=f"does not give the bytes from 7 of {len(LARGE):,}"):
        opened().read_range("model.safetensors", 7, 1)
    assert opened().read_range("model.safetensors", 0, 3) == LARGE[:3]


def test_a_child_shares_the_commit_and_sees_only_what_is_below_it(hub, repository):
    store = opened()
    assert store.has("sub/part.bin")
    hub.requests.clear()
    child = store.child("sub")
    assert child.list_files() == [FileInfo("part.bin", 10)]
    assert child.local_paths(["part.bin"])["part.bin"].read_bytes() == b"0123456789"
    assert not any("/api/" in path for path in hub.asked())


def test_listeners_are_told_of_every_byte_of_a_download(hub):
    told = []
    with watching(lambda transfer: told.append((transfer.num_done, transfer.num_bytes, transfer.is_over))):
        opened().local_paths(["config.json", "model.safetensors"])
    assert told[-1] == (2 + len(LARGE), 2 + len(LARGE), True)


def test_the_token_goes_to_the_hub_and_not_to_where_large_files_are(hub, repository, monkeypatch):
    repository.token = "hf_secret"
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    store = opened()
    assert store.read_range("model.safetensors", 0, 2) == LARGE[:2]
    store.local_paths(["model.safetensors"])
    assert {has_token for _, path, has_token in hub.requests if "org/name" in path} == {True}
    assert {has_token for _, path, has_token in hub.requests if path == f"/{SHA256}"} == {False}


def test_the_token_does_not_follow_a_listing_to_another_server(hub, repository, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    repository.commit(FILES | {f"shard-{number}": b"x" for number in range(12)})
    hub.next_page = f"{hub.storage}/more"
    opened().list_files()
    assert [has_token for _, path, has_token in hub.requests if path == "/more"] == [False]
