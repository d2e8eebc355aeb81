"""An S3 server in this process that fails as a test tells it to.

It speaks GET (ranges, If-Match), HEAD, PUT, DELETE and ListObjectsV2 over objects in memory, checks no signature, and
records what it was asked and how much it sent. What it is told to do wrong stands in faults.py and listings.py:

    with FaultyServer() as server:
        server.put("bucket", "model/config.json", b"{}")
        server.fault(reset(after=10), method="GET", key="model/*", times=2)
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase
from typing import Self

from servers.answers import Answer, Request, Stored, amz_time, error_answer, listing_answer, object_answer
from servers.serving import HTTPServer

Fault = Callable[[Request, Answer], Answer]
_SKEW_ALLOWED = timedelta(minutes=15)


@dataclass
class _Rule:
    fault: Fault
    method: str
    key: str
    skip: int
    times: float

    def applies(self, request: Request) -> bool:
        """Say whether this request is to fail, and count it."""
        if self.method not in (request.method, "*") or not fnmatchcase(request.key, self.key):
            return False
        self.skip -= 1
        if self.skip >= 0 or self.times <= 0:
            return False
        self.times -= 1
        return True


class FaultyServer:
    """A server at `endpoint`, from `with` on.

    Attributes:
        requests: Everything that was asked, in order.
        clock_skew: How far the server's clock is ahead; beyond 15 minutes it refuses what is signed with the true time.
    """

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.clock_skew = timedelta()
        self.stopping = threading.Event()
        self._buckets: dict[str, dict[str, Stored]] = {}
        self._rules: list[_Rule] = []
        self._lock = threading.Lock()
        self._connections: set[socket.socket] = set()
        self._http: HTTPServer | None = None
        self._port = 0

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.kill()

    @property
    def endpoint(self) -> str:
        """`http://127.0.0.1:port`; the same after `kill` and `start`."""
        return f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        """Listen; on the same port as before if there was one."""
        self.stopping = threading.Event()
        self._http = HTTPServer(("127.0.0.1", self._port), self)
        self._port = self._http.server_address[1]
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def kill(self) -> None:
        """Cut all connections and listen no more; objects stay."""
        self.stopping.set()
        if self._http is not None:
            self._http.shutdown()
            self._http.server_close()
        self._http = None
        with self._lock:
            for connection in self._connections:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)  # which also wakes the thread that waits on it

    def put(self, bucket: str, key: str, data: bytes, *, etag: str = "") -> str:
        """Store an object, in a bucket that then exists; returns its ETag, which is S3's unless another is given."""
        stored = Stored(data, etag) if etag else Stored.of(data)
        with self._lock:
            self._buckets.setdefault(bucket, {})[key] = stored
        return stored.etag

    def delete(self, bucket: str, key: str) -> None:
        """Remove an object."""
        with self._lock:
            del self._buckets[bucket][key]

    def objects(self, bucket: str) -> dict[str, bytes]:
        """Return what is in a bucket, by key."""
        with self._lock:
            return {key: stored.data for key, stored in self._buckets.get(bucket, {}).items()}

    def etag(self, bucket: str, key: str) -> str:
        """Return the ETag of an object."""
        return self._buckets[bucket][key].etag

    def fault(
        self, fault: Fault, *, method: str = "GET", key: str = "*", skip: int = 0, times: float = float("inf")
    ) -> None:
        """Let matching requests fail; of several faults that match one request, the one told first happens.

        Args:
            fault: Makes of a request, and the honest answer to it, the answer that is sent.
            method: `GET`, `HEAD`, `PUT`, `DELETE`, `LIST`, or `*` for all of them.
            key: A pattern with `*` for the key (for `LIST`: the prefix).
            skip: So many matching requests succeed first.
            times: So many fail then.
        """
        with self._lock:
            self._rules.append(_Rule(fault, method, key, skip, times))

    def heal(self) -> None:
        """Forget all faults, clock skew included, and all that was recorded."""
        with self._lock:
            self._rules.clear()
        self.clock_skew = timedelta()
        self.requests.clear()

    def asked(self, method: str, key: str = "*") -> list[Request]:
        """Return the recorded requests of one kind."""
        found = [request for request in self.requests if request.method == method]
        return [request for request in found if fnmatchcase(request.key, key)]

    def now(self) -> datetime:
        """Return the time by the server's clock."""
        return datetime.now(UTC) + self.clock_skew

    def answer(self, request: Request) -> Answer:
        """Record a request and decide what is sent for it."""
        with self._lock:
            self.requests.append(request)
            honest = self._skewed(request) or self._honest(request)
            rule = next((rule for rule in self._rules if rule.applies(request)), None)
        return rule.fault(request, honest) if rule else honest

    def track(self, connection: socket.socket, *, is_open: bool) -> None:
        """Remember a connection, or forget it."""
        with self._lock:
            (self._connections.add if is_open else self._connections.discard)(connection)

    def _honest(self, request: Request) -> Answer:
        bucket = self._buckets.get(request.bucket)
        if bucket is None:
            return error_answer(404, "NoSuchBucket", "The specified bucket does not exist", BucketName=request.bucket)
        if request.method == "LIST":
            return listing_answer(request, bucket)
        if request.method == "PUT":
            bucket[request.key] = stored = Stored.of(request.body)
            return Answer(200, {"ETag": stored.etag})
        if request.key not in bucket:
            return error_answer(404, "NoSuchKey", "The specified key does not exist.", Key=request.key)
        if request.method == "DELETE":
            del bucket[request.key]
            return Answer(204)
        return object_answer(request, bucket[request.key])

    def _skewed(self, request: Request) -> Answer | None:
        signed_at = request.headers.get("x-amz-date", amz_time(self.now()))
        signed = datetime.strptime(signed_at, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
        if abs(self.now() - signed) <= _SKEW_ALLOWED:
            return None
        return error_answer(
            403,
            "RequestTimeTooSkewed",
            "The difference between the request time and the current time is too large.",
            RequestTime=signed_at,
            ServerTime=self.now().strftime("%Y-%m-%dT%H:%M:%SZ"),
            MaxAllowedSkewMilliseconds="900000",
        )
