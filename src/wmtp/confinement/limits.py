"""What a process may still do once it has given up most of it; for those that open pickles and run tests of code.

Everything here is about this process, and nothing can be taken back. Only the standard library is used, so that the
network is gone before anything large is imported.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import struct
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_PR_SET_NO_NEW_PRIVS = 38
_CLONE_NEWUSER = 0x10000000
_CLONE_NEWNET = 0x40000000
# Landlock's system calls have these numbers on every architecture, and its rights these bits.
_LANDLOCK_CREATE, _LANDLOCK_ADD, _LANDLOCK_RESTRICT = 444, 445, 446
_LANDLOCK_VERSION = 1
_PATH_BENEATH = 1
_WRITE_FILE, _REMOVE_FILE, _MAKE_FILE, _TRUNCATE = 1 << 1, 1 << 5, 1 << 8, 1 << 14
_READ_FILE, _READ_DIRECTORY = 1 << 2, 1 << 3
_EXECUTE_REMOVE_MAKE = 1 << 0 | sum(1 << bit for bit in range(4, 13))
_SINCE_VERSION = {2: 1 << 13, 3: _TRUNCATE}  # the first is to move files between directories
_MAX_OPEN_FILES = 256
_RESERVE_BYTES = 256 << 20


@dataclass(frozen=True)
class Limits:
    """What a limited process may take.

    Attributes:
        memory_bytes: Address space beyond what Python and what it has imported have taken by themselves.
        seconds: Of processor time.
        output_bytes: Of any file that is written.
    """

    memory_bytes: int
    seconds: int
    output_bytes: int


def leave_network(*, as_stranger: bool = False) -> bool:
    """Move into a network of this process's own, with nothing in it; says whether that could be done.

    It can on Linux, for root, and for others where the system lets them have namespaces. Call it before any thread
    is started. The process also ends with its parent from here on, and can gain no privileges.

    Args:
        as_stranger: Whether even root gives up its powers over other processes and their files, where it can.
    """
    if not sys.platform.startswith("linux"):
        return False
    libc = ctypes.CDLL(None)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    # In a new user namespace root can no longer read the files of others: that one is first only for a stranger.
    ways = [_CLONE_NEWNET, _CLONE_NEWNET | _CLONE_NEWUSER]
    return any(libc.unshare(flags) == 0 for flags in (reversed(ways) if as_stranger else ways))


def confine_files(writable: Sequence[Path], readable: Sequence[Path] | None = None) -> bool:
    """Give up writing anywhere but below some directories, and running programs; says whether that could be done.

    It can on Linux 5.13 and later where Landlock is switched on, after `leave_network`.

    Args:
        writable: Directories whose files may be written.
        readable: What may be read; None: everything. What does not exist is passed over.
    """
    if not sys.platform.startswith("linux"):
        return False
    call = ctypes.CDLL(None).syscall
    version = call(_LANDLOCK_CREATE, None, ctypes.c_size_t(0), _LANDLOCK_VERSION)
    if version < 1:
        return False
    reading = 0 if readable is None else _READ_FILE | _READ_DIRECTORY
    handled = _EXECUTE_REMOVE_MAKE | _WRITE_FILE | reading
    handled |= sum(right for since, right in _SINCE_VERSION.items() if since <= version)
    rules = struct.pack("=Q", handled)
    ruleset = call(_LANDLOCK_CREATE, rules, ctypes.c_size_t(len(rules)), 0)
    if ruleset < 0:
        return False
    writing = _WRITE_FILE | _REMOVE_FILE | _MAKE_FILE | _TRUNCATE
    allowed = [(path, (writing | reading) & handled) for path in writable]
    allowed += [(path, reading) for path in readable or () if path.exists()]
    if not all(_allow(call, ruleset, path, rights) for path, rights in allowed):
        return False
    restricted: int = call(_LANDLOCK_RESTRICT, ruleset, 0)
    os.close(ruleset)
    return restricted == 0


def _allow(call: Callable[..., int], ruleset: int, path: Path, rights: int) -> bool:
    place = os.open(path, os.O_PATH)
    if not path.is_dir():
        rights &= ~_READ_DIRECTORY  # which a file does not have
    added = call(_LANDLOCK_ADD, ruleset, _PATH_BENEATH, struct.pack("=Qi", rights, place), 0)
    os.close(place)
    return added == 0


def apply_limits(limits: Limits) -> bool:
    """Set all limits, counted from now on; says whether the one on memory holds (it does on Linux only)."""
    _limit("RLIMIT_CORE", 0)
    _limit("RLIMIT_NPROC", 0)  # no process and no thread more; root is exempt
    _limit("RLIMIT_NOFILE", _MAX_OPEN_FILES)
    _limit("RLIMIT_FSIZE", limits.output_bytes)
    # The first signal says which limit it was; at the hard one the process would be killed without a word.
    _limit("RLIMIT_CPU", int(time.process_time()) + 1 + limits.seconds, reserve=5)
    taken = _address_space()
    return taken is not None and _limit("RLIMIT_AS", taken + limits.memory_bytes, reserve=_RESERVE_BYTES)


def release_reserve() -> None:
    """Allow a little more memory, so that running out of it can still be told."""
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    with contextlib.suppress(OSError, ValueError):  # where there is no such limit, nothing is to be released
        resource.setrlimit(resource.RLIMIT_AS, (hard, hard))


def _limit(name: str, value: int, *, reserve: int = 0) -> bool:
    kind = getattr(resource, name, None)
    if kind is None:
        return False
    _, hard = resource.getrlimit(kind)
    ceiling = value + reserve if hard == resource.RLIM_INFINITY else min(value + reserve, hard)
    try:
        resource.setrlimit(kind, (min(value, ceiling), ceiling))
    except (OSError, ValueError):
        return False  # macOS has some of these names and no such limits
    return True


def _address_space() -> int | None:
    try:
        pages = int(Path("/proc/self/statm").read_bytes().split()[0])
    except OSError:
        return None
    return pages * os.sysconf("SC_PAGE_SIZE")
