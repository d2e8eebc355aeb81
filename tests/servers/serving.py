"""The HTTP of the faulty server: a request is read, its answer delivered in whatever way the answer says."""

from __future__ import annotations

import socket
import struct
from contextlib import suppress
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, unquote, urlsplit

from typing_extensions import override

from servers.answers import Answer, Request

if TYPE_CHECKING:
    from servers.faulty import FaultyServer

_PIECE = 1 << 16


class HTTPServer(ThreadingHTTPServer):
    """Passes every request to its owner, a thread for each connection."""

    request_queue_size = 128

    def __init__(self, address: tuple[str, int], owner: FaultyServer) -> None:
        super().__init__(address, _Handler)
        self.owner = owner


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: HTTPServer

    @override
    def handle(self) -> None:
        self.server.owner.track(self.connection, is_open=True)
        with suppress(OSError, ValueError):  # the client went, or `kill` cut the connection
            super().handle()
        self.server.owner.track(self.connection, is_open=False)

    @override
    def finish(self) -> None:
        with suppress(OSError, ValueError):
            super().finish()

    @override
    def log_message(self, *args: object) -> None:
        """Write nothing: what was asked is recorded."""

    @override
    def date_time_string(self, timestamp: float | None = None) -> str:
        return format_datetime(self.server.owner.now(), usegmt=True)

    def _serve(self) -> None:
        address = urlsplit(self.path)
        bucket, _, key = address.path.lstrip("/").partition("/")
        query = dict(parse_qsl(address.query, keep_blank_values=True))
        headers = {name.lower(): value for name, value in self.headers.items()}
        body = self.rfile.read(int(headers.get("content-length", 0)))
        is_listing = self.command == "GET" and query.get("list-type") == "2"
        method = "LIST" if is_listing else self.command
        name = query.get("prefix", "") if is_listing else unquote(key)
        request = Request(method, unquote(bucket), name, query, headers, body)
        self._deliver(request, self.server.owner.answer(request))

    do_GET = do_HEAD = do_PUT = do_DELETE = _serve

    def _deliver(self, request: Request, answer: Answer) -> None:
        request.status = answer.status
        if not answer.silent:
            self._send_head(answer)
            self._send_body(request, answer)
        if answer.ending == "stall":
            self.server.owner.stopping.wait()
        if answer.ending == "reset":
            _reset(self.connection)
        self.close_connection = self.close_connection or answer.ending != "keep"

    def _send_head(self, answer: Answer) -> None:
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        if answer.promised_bytes is None:
            self.send_header("Transfer-Encoding", "chunked")
        else:
            self.send_header("Content-Length", str(answer.promised_bytes))
        self.end_headers()

    def _send_body(self, request: Request, answer: Answer) -> None:
        if request.method == "HEAD":
            return
        body = memoryview(answer.body)[: answer.sent_bytes]
        for start in range(0, len(body), _PIECE):
            self._send_piece(request, answer, body[start : start + _PIECE])
        while answer.endless and not self.server.owner.stopping.is_set():
            self._send_piece(request, answer, bytes(_PIECE))

    def _send_piece(self, request: Request, answer: Answer, piece: bytes | memoryview) -> None:
        framed = b"%x\r\n%b\r\n" % (len(piece), bytes(piece)) if answer.promised_bytes is None else piece
        self.wfile.write(framed)
        request.sent_bytes += len(piece)
        self.server.owner.stopping.wait(answer.pause_seconds)


def _reset(connection: socket.socket) -> None:
    """Let the other side see a reset, not an end, when the connection is closed, which is now."""
    with suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()
