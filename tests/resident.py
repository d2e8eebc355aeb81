"""Which part of a mapped file a process holds in memory."""

from __future__ import annotations

from pathlib import Path


def resident_bytes(end: str) -> int:
    """Return how many bytes of files whose paths end so are in this process's memory; on Linux."""
    mapped, found = False, 0
    for line in Path("/proc/self/smaps").read_text().splitlines():
        first, *rest = line.split()
        if "-" in first:
            mapped = line.endswith(end)
        elif first == "Rss:" and mapped:
            found += 1024 * int(rest[0])
    return found
