"""A directory in memory that only this process sees: bounded in all, and gone with it."""

from __future__ import annotations

import ctypes
import os
import sys
from contextlib import suppress
from pathlib import Path

_CLONE_NEWNS = 0x00020000
_NO_SUID_NO_DEVICES, _ALL_BELOW, _TAKES_NOTHING_OUT = 2 | 4, 16384, 1 << 19


def mount_scratch(directory: Path, size_bytes: int, user: int, group: int) -> bool:
    """Put an empty file system in memory over a directory, and go there; says whether that could be done.

    It can on Linux, after `leave_network(as_stranger=True)` has given this process namespaces.

    Args:
        directory: What is in it can no longer be seen.
        size_bytes: What all files in it may take together.
        user: Who this process was before that call.
        group: Its group then.
    """
    if not sys.platform.startswith("linux"):
        return False
    libc = ctypes.CDLL(None)
    if libc.unshare(_CLONE_NEWNS) != 0:
        return False
    _be_somebody(user, group)
    if libc.mount(None, b"/", None, _ALL_BELOW | _TAKES_NOTHING_OUT, None) != 0:
        return False
    options = f"size={size_bytes},nr_inodes=1000,mode=777".encode()
    if libc.mount(b"tmpfs", os.fsencode(directory), b"tmpfs", _NO_SUID_NO_DEVICES, options) != 0:
        return False
    os.chdir(directory)
    return True


def _be_somebody(user: int, group: int) -> None:
    # In a new user namespace nobody can own a file before this is said; elsewhere it is said already.
    for name, text in (("setgroups", "deny"), ("uid_map", f"{user} {user} 1"), ("gid_map", f"{group} {group} 1")):
        with suppress(OSError):
            Path("/proc/self", name).write_text(text, encoding="ascii")
