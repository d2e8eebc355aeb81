"""Threads of this process that its libraries started, those that Python does not know included; on Linux."""

import time
from pathlib import Path

_PATIENCE_SECONDS = 30.0  # one that goes on is not waited out: a process that ends would meet it


def lasting_threads(word: str) -> list[str]:
    """Return the names of threads with a word in them that do not go away.

    A thread that was joined may still be listed for a moment: the system lets the one that waits go on first.
    """
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while (found := _threads(word)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return found


def _threads(word: str) -> list[str]:
    names = []
    for path in Path("/proc/self/task").glob("*/comm"):
        try:
            names.append(path.read_text().strip())
        except OSError:  # it went away meanwhile
            continue
    return sorted(name for name in names if word in name)
