"""A TCP proxy that counts what passes through it."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

_CHUNK_BYTES = 1 << 16


class CountingProxy:
    """Passes connections on to one server while the block runs.

    Signatures of requests hold: the `Host` that clients sign is the proxy's, and reaches the server as it is.

    Args:
        endpoint: `http://host:port` of the server.

    Attributes:
        endpoint: `http://127.0.0.1:port` of the proxy.
        num_received: Bytes that the server sent, headers included.
        num_connections: Connections that clients opened.
    """

    def __init__(self, endpoint: str) -> None:
        parts = urlsplit(endpoint)
        self._server = (parts.hostname or "", parts.port or 80)
        self._listening = socket.create_server(("127.0.0.1", 0), backlog=256)
        self._lock = threading.Lock()
        self.endpoint = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        self.num_received = self.num_connections = 0

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()

    def _accept(self) -> None:
        with suppress(OSError):  # closed
            while True:
                client, _ = self._listening.accept()
                self.num_connections += 1
                server = socket.create_connection(self._server)
                threading.Thread(target=self._pass_on, args=(client, server, False), daemon=True).start()
                threading.Thread(target=self._pass_on, args=(server, client, True), daemon=True).start()

    def _pass_on(self, source: socket.socket, target: socket.socket, is_answer: bool) -> None:
        with suppress(OSError):
            while data := source.recv(_CHUNK_BYTES):
                if is_answer:
                    with self._lock:
                        self.num_received += len(data)
                target.sendall(data)
        with suppress(OSError):
            target.shutdown(socket.SHUT_WR)
