"""The faulty server really fails as it is told to: seen with a plain HTTP client."""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from urllib.parse import quote, urlsplit

import pytest

from servers.faults import (
    bit_flipped,
    denied,
    endless,
    etag_ignored,
    hung_up,
    overlong,
    page_of_html,
    precondition_failed,
    redirected,
    reset,
    shifted,
    signed_for_another_region,
    slow,
    spoken,
    stalled,
    status,
    then,
    truncated,
    unanswered,
    whole_object,
    without_etag,
    wrong_region,
)
from servers.faulty import FaultyServer

DATA = bytes(range(256)) * 1000


@pytest.fixture
def server() -> Iterator[FaultyServer]:
    with FaultyServer() as started:
        started.put("bucket", "model/a.bin", DATA)
        yield started


def test_an_object_is_read_whole_or_by_range_in_the_version_that_is_asked_for(server: FaultyServer):
    etag = server.etag("bucket", "model/a.bin")
    assert ask(server)[::2] == (200, DATA)
    code, headers, body = ask(server, headers={"Range": "bytes=10-19", "If-Match": etag})
    assert (code, body) == (206, DATA[10:20])
    assert (headers["ETag"], headers["Content-Range"]) == (etag, "bytes 10-19/256000")
    assert ask(server, headers={"Range": "bytes=-5"})[2] == DATA[-5:]
    assert ask(server, headers={"Range": "bytes=256000-256001"})[0] == 416
    assert ask(server, headers={"If-Match": '"another"'})[0] == 412
    assert ask(server, "HEAD")[1]["Content-Length"] == "256000"
    assert [request.status for request in server.asked("GET")] == [200, 206, 206, 416, 412]
    assert server.asked("GET", "model/*")[1].sent_bytes == 10


def test_what_is_not_there_is_named_as_s3_names_it(server: FaultyServer):
    assert b"<Code>NoSuchKey</Code>" in ask(server, path="/bucket/none")[2]
    assert b"<Code>NoSuchBucket</Code>" in ask(server, path="/none/none")[2]


def test_objects_are_written_listed_and_deleted(server: FaultyServer):
    path = "/bucket/" + quote("model/ä \x1b b")
    assert ask(server, "PUT", path, body=b"abc")[0] == 200
    listed = ask(server, path="/bucket?list-type=2&prefix=model/")[2].decode()
    assert "<Key>model/a.bin</Key>" in listed
    assert "<Key>model/ä &#27; b</Key>" in listed
    assert ask(server, "DELETE", path)[0] == 204
    assert server.objects("bucket") == {"model/a.bin": DATA}


def test_a_listing_has_pages(server: FaultyServer):
    for number in range(5):
        server.put("bucket", f"pages/{number}", b"")
    first = ask(server, path="/bucket?list-type=2&prefix=pages/&max-keys=3")[2]
    assert first.count(b"<Key>") == 3
    assert b"<NextContinuationToken>pages/2</NextContinuationToken>" in first
    last = ask(server, path="/bucket?list-type=2&prefix=pages/&max-keys=3&continuation-token=pages/2")[2]
    assert b"<Key>pages/3</Key>" in last
    assert b"<IsTruncated>false</IsTruncated>" in last


def test_a_fault_happens_to_the_requests_it_was_told_for_and_to_no_others(server: FaultyServer):
    server.fault(status(503, "SlowDown"), key="model/*", skip=1, times=2)
    assert [ask(server)[0] for _ in range(4)] == [200, 503, 503, 200]
    assert ask(server, "HEAD")[0] == 200


@pytest.mark.parametrize(
    ("fault", "error"), [(reset(100_000), ConnectionResetError), (hung_up(), ConnectionResetError)]
)
def test_a_connection_is_reset(server: FaultyServer, fault, error):
    server.fault(fault)
    with pytest.raises(error):
        ask(server)
    assert server.asked("GET")[0].sent_bytes in (0, 100_000)


def test_a_body_ends_too_early(server: FaultyServer):
    server.fault(truncated(after=1000))
    with pytest.raises(http.client.IncompleteRead, match="1000 bytes read, 255000 more"):
        ask(server)


@pytest.mark.parametrize("fault", [stalled(after=1000), unanswered()])
def test_an_answer_stalls_until_the_server_stops(server: FaultyServer, fault):
    server.fault(fault)
    with pytest.raises(TimeoutError):
        ask(server, timeout=0.2)


def test_a_slow_answer_is_an_honest_one(server: FaultyServer):
    server.fault(slow(0.01))
    with connected(server) as connection:
        connection.request("GET", "/bucket/model/a.bin")
        response = connection.getresponse()
        assert response.read(1) == DATA[:1]
        assert server.asked("GET")[0].sent_bytes < len(DATA)
        assert response.read() == DATA[1:]


def test_a_body_is_longer_than_its_range_or_never_ends(server: FaultyServer):
    server.fault(overlong(7), times=1)
    code, headers, body = ask(server, headers={"Range": "bytes=0-9"})
    assert (code, headers["Content-Length"], len(body)) == (206, "17", 17)
    server.fault(endless())
    with connected(server) as connection:
        connection.request("GET", "/bucket/model/a.bin")
        assert len(connection.getresponse().read(5_000_000)) == 5_000_000


@pytest.mark.parametrize("name", ["SignatureDoesNotMatch", "InvalidAccessKeyId", "ExpiredToken", "AccessDenied"])
def test_refusals_repeat_what_s3_repeats(server: FaultyServer, name: str):
    server.fault(denied(name), method="*")
    credential = "AWS4-HMAC-SHA256 Credential=the-key/20260105/us-east-1/s3/aws4_request, Signature=abcdef"
    headers = {"Authorization": credential, "x-amz-security-token": "the-token"}
    code, _, body = ask(server, headers=headers)
    assert (code, f"<Code>{name}</Code>".encode() in body) == (403, True)
    told = {"ExpiredToken": b"the-token", "AccessDenied": b"Access Denied"}.get(name, b"the-key")
    assert told in body
    assert ask(server, "HEAD", headers=headers)[2] == b""


def test_a_clock_that_is_wrong_refuses_signed_requests_and_says_both_times(server: FaultyServer):
    server.clock_skew = timedelta(hours=-1)
    signed_at = (server.now() + timedelta(hours=1)).strftime("%Y%m%dT%H%M%SZ")
    code, _, body = ask(server, headers={"x-amz-date": signed_at})
    assert (code, b"<Code>RequestTimeTooSkewed</Code>" in body) == (403, True)
    assert f"<RequestTime>{signed_at}</RequestTime>".encode() in body
    server.heal()
    assert ask(server, headers={"x-amz-date": server.now().strftime("%Y%m%dT%H%M%SZ")})[0] == 200


def test_answers_are_wrong_in_quiet_ways(server: FaultyServer):
    ranged = {"Range": "bytes=100-199", "If-Match": server.etag("bucket", "model/a.bin")}
    for fault in (
        whole_object(server),
        etag_ignored(server, DATA[::-1]),
        bit_flipped(150, times=1),
        shifted(5),
        without_etag(),
    ):
        server.fault(fault, times=1)
    assert ask(server, headers=ranged)[::2] == (200, DATA)
    code, headers, body = ask(server, headers=ranged)
    assert (code, body, headers["ETag"] != ranged["If-Match"]) == (206, DATA[::-1][100:200], True)
    flipped = ask(server, headers=ranged)[2]
    assert [position for position in range(100) if flipped[position] != DATA[100 + position]] == [50]
    assert ask(server, headers=ranged)[1]["Content-Range"] == "bytes 105-204/256000"
    assert ask(server, headers=ranged)[1]["ETag"] is None


def test_an_object_is_replaced_once_it_has_been_sent(server: FaultyServer):
    server.fault(then(lambda: server.put("bucket", "model/a.bin", b"new")), times=1)
    assert [ask(server)[2] for _ in range(2)] == [DATA, b"new"]


def test_other_services_answer(server: FaultyServer):
    told = (wrong_region("eu-west-1"), signed_for_another_region("eu-west-1"), precondition_failed(), page_of_html())
    for fault in (*told, redirected("http://elsewhere"), spoken(403, "no \x1b {authorization}")):
        server.fault(fault, times=1)
    assert ask(server)[1]["x-amz-bucket-region"] == "eu-west-1"
    assert b"<Region>eu-west-1</Region>" in ask(server)[2]
    assert ask(server)[0] == 412
    assert ask(server)[2].startswith(b"<!DOCTYPE html>")
    assert ask(server)[1]["Location"] == "http://elsewhere/bucket/model/a.bin"
    assert b"<Message>no &#27; the-header</Message>" in ask(server, headers={"Authorization": "the-header"})[2]


def test_a_killed_server_cuts_connections_and_is_back_on_its_port_with_its_objects(server: FaultyServer):
    server.fault(stalled(after=10), times=1)
    endpoint, thread = server.endpoint, threading.Thread(target=kill_once_asked, args=[server])
    thread.start()
    with pytest.raises((http.client.IncompleteRead, ConnectionResetError)):
        ask(server, timeout=60)
    thread.join()
    with pytest.raises(ConnectionRefusedError):
        ask(server)
    server.start()
    assert (server.endpoint, ask(server)[2]) == (endpoint, DATA)


def kill_once_asked(server: FaultyServer) -> None:
    while not server.requests:
        time.sleep(0.01)
    server.kill()


def ask(
    server: FaultyServer,
    method: str = "GET",
    path: str = "/bucket/model/a.bin",
    *,
    headers: dict[str, str] | None = None,
    body: bytes | None = None,
    timeout: float = 60,
) -> tuple[int, http.client.HTTPMessage, bytes]:
    with connected(server, timeout) as connection:
        connection.request(method, path, body=body, headers=headers or {})
        response = connection.getresponse()
        return response.status, response.headers, response.read()


@contextmanager
def connected(server: FaultyServer, timeout: float = 60) -> Iterator[http.client.HTTPConnection]:
    connection = http.client.HTTPConnection(urlsplit(server.endpoint).netloc, timeout=timeout)
    try:
        yield connection
    finally:
        connection.close()
