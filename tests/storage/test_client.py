from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from typing_extensions import Buffer

from servers.environment import use_server
from servers.faults import etag_ignored, reset, spoken, wrong_region
from servers.faulty import FaultyServer
from wmtp.errors import ChangedError, NotFoundError, SettingsError, StorageError
from wmtp.storage.client import ObjectClient, ObjectInfo, transfer_timeout
from wmtp.storage.uri import ModelURI, parse_uri


@pytest.fixture
def memory(request: pytest.FixtureRequest) -> ObjectClient:
    return ObjectClient(ModelURI("memory", request.node.name, ""))


@pytest.fixture
def faulty(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FaultyServer]:
    with FaultyServer() as server:
        use_server(monkeypatch, server.endpoint, home=tmp_path)
        yield server


@pytest.fixture
def s3(s3_bucket: str) -> ObjectClient:
    return ObjectClient(parse_uri(f"s3://{s3_bucket}/ignored"))


def test_what_one_memory_client_puts_another_of_the_process_sees(memory: ObjectClient) -> None:
    written = memory.put("a/b.json", b"{}")
    other = ObjectClient(memory.uri / "a")
    assert other.head("a/b.json") == written
    assert other.get("a/b.json", max_bytes=2) == (b"{}", written)
    assert other.list("a", max_objects=1) == [written]


def test_a_version_that_is_gone_is_told_from_the_one_that_is_there(memory: ObjectClient) -> None:
    first = memory.put("m/a", b"one")
    second = memory.put("m/a", b"three")
    with pytest.raises(ChangedError) as error:
        list(memory.stream(first, 0, 3))
    assert f"was 3 bytes with ETag '{first.etag}', and is 5 bytes with ETag '{second.etag}'" in error.value.problem
    with pytest.raises(ChangedError):
        memory.get("m/a", max_bytes=9, etag=first.etag)


def test_a_missing_object_is_named_with_its_bucket(memory: ObjectClient) -> None:
    for ask in (memory.head, lambda key: memory.get(key, max_bytes=1)):
        with pytest.raises(NotFoundError, match=rf"{memory.uri}/m/none: no such object"):
            ask("m/none")


def test_an_object_larger_than_allowed_is_refused_with_both_sizes(memory: ObjectClient) -> None:
    memory.put("big", bytes(2000))
    with pytest.raises(StorageError, match="big: 2,000 bytes, more than the 1,999 allowed"):
        memory.get("big", max_bytes=1999)


def test_siblings_and_markers_of_directories_are_not_listed(s3: ObjectClient, s3_bucket: str, seaweed) -> None:
    for key in ("m/", "m/sub/", "m/sub/x", "m/alone/", "m-old/y", "m/a b", "m/ü%20"):
        seaweed.client().put_object(Bucket=s3_bucket, Key=key, Body=b"" if key.endswith("/") else b"1")
    s3.put("m/empty", b"")
    assert [info.key for info in s3.list("m", max_objects=9)] == ["m/a b", "m/empty", "m/sub/x", "m/ü%20"]
    assert [info.key for info in s3.list("m-old", max_objects=9)] == ["m-old/y"]
    assert s3.list("none", max_objects=9) == []
    with pytest.raises(StorageError, match="more than 3 objects"):
        s3.list("", max_objects=3)


def test_a_large_file_goes_up_in_parts_and_comes_down_in_small_chunks(s3: ObjectClient, tmp_path: Path) -> None:
    data = bytes(range(256)) * (80 << 10)
    (tmp_path / "model.safetensors").write_bytes(data)
    written = s3.put("m/model.safetensors", tmp_path / "model.safetensors")
    assert written.size_bytes == len(data)
    assert written.etag is not None
    assert written.etag.endswith('-3"')  # three parts
    chunks = [bytes(chunk) for chunk in s3.stream(written, 1000, len(data) - 7)]
    assert b"".join(chunks) == data[1000:-7]
    assert max(map(len, chunks)) <= 1 << 20


def test_listing_head_and_get_agree_on_the_version(s3: ObjectClient) -> None:
    written = s3.put("m/a", b"hello")
    assert s3.list("m", max_objects=1) == [written]
    assert s3.head("m/a") == written
    assert s3.get("m/a", max_bytes=5, etag=written.etag) == (b"hello", written)


def test_a_deleted_object_is_gone_and_may_be_deleted_again(s3: ObjectClient) -> None:
    s3.put("m/a", b"hello")
    s3.delete("m/a")
    s3.delete("m/a")
    with pytest.raises(NotFoundError, match="m/a: no such object"):
        s3.head("m/a")


def test_a_bucket_that_is_not_there_is_named_by_every_request(s3_bucket: str) -> None:
    client = ObjectClient(parse_uri("s3://no-such-bucket"))
    asks = (
        lambda: client.head("k"),
        lambda: client.list("p", max_objects=1),
        lambda: client.list("", max_objects=1),
        lambda: client.put("k", b""),
    )
    for ask in asks:
        with pytest.raises(NotFoundError, match="there is no bucket s3://no-such-bucket"):
            ask()


def test_a_file_that_cannot_be_read_is_not_taken_for_a_missing_object(memory: ObjectClient, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=f"^{tmp_path / 'none'}: No such file") as error:
        memory.put("k", tmp_path / "none")
    assert not isinstance(error.value, NotFoundError)


@pytest.mark.parametrize("key", ["m/../secret", "m//x", "m/a\x1bb"])
def test_a_key_that_is_no_path_is_never_asked_for(memory: ObjectClient, key: str) -> None:
    for ask in (memory.head, memory.delete, lambda key: memory.put(key, b"x")):
        with pytest.raises(StorageError, match="is no path") as error:
            ask(key)
        assert "\x1b" not in str(error.value)


def test_no_byte_of_an_empty_range_is_asked_for() -> None:
    nowhere = ObjectClient(ModelURI("memory", "no-such-store-of-this-process", ""))
    assert list(nowhere.stream(ObjectInfo("k", 5, None), 3, 3)) == []


def test_listing_works_where_an_event_loop_runs_already(memory: ObjectClient) -> None:
    import asyncio

    async def in_a_notebook() -> list[ObjectInfo]:
        return memory.list("a", max_objects=9)

    written = memory.put("a/b", b"1")
    assert asyncio.run(in_a_notebook()) == [written]


def test_a_stream_that_is_given_up_lets_go_of_its_connection(faulty: FaultyServer) -> None:
    etag = faulty.put("bucket", "big", bytes(64 << 20))
    stream = ObjectClient(parse_uri("s3://bucket")).stream(ObjectInfo("big", 64 << 20, etag), 0, 64 << 20)
    first = next(stream)
    stream.close()
    faulty.kill()
    assert len(first) <= faulty.requests[0].sent_bytes < 64 << 20
    assert len(faulty.requests) == 1


def test_what_is_gone_on_with_is_never_another_version(faulty: FaultyServer) -> None:
    etag = faulty.put("bucket", "m/a", b"a" * 200_000)
    faulty.fault(reset(after=70_000), times=1)
    faulty.fault(etag_ignored(faulty, b"b" * 200_000))
    stream = ObjectClient(parse_uri("s3://bucket")).stream(ObjectInfo("m/a", 200_000, etag), 0, 200_000)
    got: list[Buffer] = []
    with pytest.raises(ChangedError, match=r"it was 200,000 bytes with ETag .* and is 200,000 bytes with ETag"):
        got.extend(stream)
    assert set(b"".join(got)) == {ord("a")}


def test_the_region_that_a_bucket_is_in_is_learned_from_its_server(faulty: FaultyServer) -> None:
    etag = faulty.put("bucket", "m/a", b"1")
    faulty.fault(wrong_region("eu-west-1"), method="*")
    with pytest.raises(StorageError, match="m/a: the bucket is in the region eu-west-1, not in the one") as error:
        list(ObjectClient(parse_uri("s3://bucket")).stream(ObjectInfo("m/a", 1, etag), 0, 1))
    assert error.value.hint.startswith("set AWS_REGION=eu-west-1")


@pytest.mark.parametrize("value", ["", "soon", "0", "-3", "nan", "inf", "100000"])
def test_a_transfer_timeout_that_is_no_number_of_seconds_is_refused(
    value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WMTP_TRANSFER_TIMEOUT", value)
    with pytest.raises(SettingsError, match=f"WMTP_TRANSFER_TIMEOUT is '{value}'"):
        transfer_timeout()


def test_the_client_is_imported_without_any_library_of_a_store() -> None:
    program = (
        "import sys, wmtp.storage.client as c, wmtp.storage.uri as u\n"
        "c.ObjectClient(u.parse_uri('s3://bucket/key'))\n"
        "print(sorted({'obstore', 'boto3', 'botocore', 'asyncio', 'http.client'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_forked_process_is_told_that_it_cannot_use_what_its_parent_used():
    client = ObjectClient(parse_uri("memory://forked"))
    client.put("k", b"x")
    ours, theirs = os.pipe()
    if (child := os.fork()) == 0:
        try:
            client.head("k")
        except StorageError as error:
            os.write(theirs, error.problem.encode())
        finally:
            os._exit(0)
    os.close(theirs)
    os.waitpid(child, 0)
    with open(ours) as told:  # noqa: PTH123  a descriptor
        assert "was forked from one that had used an object store" in told.read()


def test_what_a_server_repeats_of_our_own_credentials_is_not_shown(faulty, monkeypatch):
    token = "short-session-token-1"
    monkeypatch.setenv("AWS_SESSION_TOKEN", token)
    faulty.put("lab", "k", b"x")
    faulty.fault(spoken(400, "what do I care for {token}?"), method="*")
    with pytest.raises(StorageError, match=r"what do I care for \[credentials\]\?"):
        ObjectClient(parse_uri("s3://lab")).get("k", max_bytes=10)
