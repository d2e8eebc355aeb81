"""How far a transfer is: for whoever listens, and for the log."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

_LOG_SECONDS = 10.0
_PAUSE_SECONDS = 0.1  # chunks arrive thousands of times a second, and drawing takes longer than hashing them
_logger = logging.getLogger(__name__)


class Transfer:
    """Files on their way.

    Attributes:
        what: What is moved, for a person.
        num_done: Bytes moved so far; a part that had to be moved again counts again.
        is_over: Whether nothing more will come.
    """

    def __init__(self, what: str, sizes: Mapping[str, int], listener: Callable[[Transfer], None]) -> None:
        self.what, self.num_done, self.is_over = what, 0, False
        self._sizes, self._next_report = Counter(sizes), 0.0
        self._started, self._listener, self._lock = time.monotonic(), listener, threading.Lock()

    @property
    def num_files(self) -> int:
        """Files in all, as far as is known."""
        return len(self._sizes)

    @property
    def num_bytes(self) -> int:
        """Bytes in all, as far as is known."""
        return self._sizes.total()

    def expect(self, name: str, num_bytes: int) -> None:
        """Say that so many more bytes of a file are to come."""
        self._sizes[name] += num_bytes

    def advance(self, num_bytes: int) -> None:
        """Say that so many more bytes were moved; from any thread. The listener hears of it a few times a second."""
        with self._lock:
            self.num_done += num_bytes
            if self.seconds >= self._next_report:
                self._next_report = self.seconds + _PAUSE_SECONDS
                self._listener(self)

    def end(self) -> None:
        """Say that nothing more will come."""
        with self._lock:
            self.is_over = True
            self._listener(self)

    @property
    def seconds(self) -> float:
        """Seconds since it began."""
        return time.monotonic() - self._started

    @property
    def rate(self) -> float:
        """Bytes a second so far."""
        return self.num_done / max(self.seconds, 1e-9)

    @property
    def seconds_left(self) -> float:
        """Seconds that the rest takes at this rate."""
        return max(self.num_bytes - self.num_done, 0) / max(self.rate, 1.0)

    def __str__(self) -> str:
        done, whole = f"{self.num_done / 1e6:,.1f}", f"{self.num_bytes / 1e6:,.1f}"
        return f"{self.what}: {done} of {whole} MB, {self.rate / 1e6:,.0f} MB/s, {self.seconds_left:.0f} s left"


class _Logged:
    """Writes a line for what takes long, and none for what does not."""

    def __init__(self) -> None:
        self._next = time.monotonic() + _LOG_SECONDS

    def __call__(self, transfer: Transfer) -> None:
        if time.monotonic() >= self._next and not transfer.is_over:
            self._next = time.monotonic() + _LOG_SECONDS
            _logger.info("%s", transfer)


_watcher: ContextVar[Callable[[Transfer], None] | None] = ContextVar("watcher", default=None)


@contextmanager
def watching(listener: Callable[[Transfer], None]) -> Iterator[None]:
    """Tell a listener about transfers that begin in this context; from several threads, one call at a time.

    Without one, a line is logged every ten seconds, and one at the end.
    """
    token = _watcher.set(listener)
    try:
        yield
    finally:
        _watcher.reset(token)


@contextmanager
def transferring(what: str, sizes: Mapping[str, int] | None = None) -> Iterator[Transfer]:
    """Give a transfer to report to; its end is reported when the block ends; where nobody listens, it is logged.

    Args:
        what: What is moved, for a person.
        sizes: Bytes to come by file, as far as is known yet.
    """
    transfer = Transfer(what, sizes or {}, _watcher.get() or _Logged())
    try:
        yield transfer
        if _watcher.get() is None:
            plural = "s" * (transfer.num_files != 1)
            moved = f"{transfer.num_done / 1e6:,.1f} MB in {transfer.seconds:.1f} s, {transfer.rate / 1e6:,.0f} MB/s"
            _logger.info("%s: %d file%s, %s", what, transfer.num_files, plural, moved)
    finally:
        transfer.end()
