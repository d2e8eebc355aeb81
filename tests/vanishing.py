"""Directories that come and go while somebody looks into them, as they do where several processes want the same."""

import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path


@contextmanager
def coming_and_going(directory: Path) -> Iterator[None]:
    """Make a directory with two files in it, and remove it, again and again, for as long as the block lasts."""
    ended, rounds = threading.Event(), count()

    def churn() -> None:
        while not ended.is_set():
            directory.mkdir(parents=True)
            for name in ("a", "b"):
                (directory / name).write_bytes(b"1234")
            shutil.rmtree(directory)
            next(rounds)

    thread = threading.Thread(target=churn)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
    assert next(rounds) > 1
