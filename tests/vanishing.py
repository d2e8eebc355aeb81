"""Directories that come and go while somebody looks into them, as they do where several processes want the same."""

import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

_ROUNDS = 500


@contextmanager
def coming_and_going(directory: Path) -> Iterator[Callable[[], bool]]:
    """Make a directory with two files in it, and remove it, many times; yields what says whether it still does."""
    left = list(range(_ROUNDS))

    def churn() -> None:
        while left:
            directory.mkdir(parents=True)
            for name in ("a", "b"):
                (directory / name).write_bytes(b"1234")
            shutil.rmtree(directory)
            left.pop()

    thread = threading.Thread(target=churn)
    thread.start()
    try:
        yield thread.is_alive
    finally:
        thread.join()
    assert not left
