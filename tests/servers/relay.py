"""A relay in front of a server that counts what the server sends."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from socketserver import BaseRequestHandler, ThreadingTCPServer
from typing import Self
from urllib.parse import urlsplit

from typing_extensions import override


class Relay(ThreadingTCPServer):
    """Passes every byte on in both directions, from `with` on.

    Args:
        endpoint: `http://host:port` of the server.

    Attributes:
        sent: Bytes that the server has sent so far.
    """

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, endpoint: str) -> None:
        address = urlsplit(endpoint)
        self.server_at = (str(address.hostname), int(address.port or 80))
        self.sent, self.lock = 0, threading.Lock()
        super().__init__(("127.0.0.1", 0), _Connection)

    @property
    def endpoint(self) -> str:
        """`http://127.0.0.1:port`, which answers as the server does."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    @override
    def __enter__(self) -> Self:
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return self

    @override
    def __exit__(self, *exception: object) -> None:
        self.shutdown()
        self.server_close()


class _Connection(BaseRequestHandler):
    server: Relay

    @override
    def handle(self) -> None:
        with socket.create_connection(self.server.server_at) as upstream:
            threading.Thread(target=_pass_on, args=(self.request, upstream), daemon=True).start()
            _pass_on(upstream, self.request, self._count)

    def _count(self, num_bytes: int) -> None:
        with self.server.lock:
            self.server.sent += num_bytes


def _pass_on(source: socket.socket, target: socket.socket, count: object = None) -> None:
    with suppress(OSError):
        while data := source.recv(1 << 16):
            if callable(count):
                count(len(data))
            target.sendall(data)
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)
