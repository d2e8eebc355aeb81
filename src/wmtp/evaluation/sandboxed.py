"""The process that runs a program and its tests: it limits itself, runs them, and tells which tests have run through.

Only the standard library is used, and nothing of ours that imports more: the process starts once for each program.
Whoever reads what it writes believes the lines with the token of this run alone. A program that ends the process, or
prints, does not have it.
"""

from __future__ import annotations

import errno
import gc
import json
import os
import sys
import traceback
from functools import partial
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any

from wmtp.confinement.limits import Limits, apply_limits, confine_files, leave_network
from wmtp.confinement.scratch import mount_scratch
from wmtp.confinement.system_calls import bar_processes

# What a limit makes a system call say.
_LIMITED = (errno.EPERM, errno.EACCES, errno.EAGAIN, errno.EFBIG, errno.ENOSPC, errno.ENOMEM, errno.EMFILE)
_SYSTEM = (
    "/usr/lib",
    "/usr/lib64",
    "/lib",
    "/lib64",
    "/etc/ld.so.cache",
    "/usr/share/zoneinfo",
    "/dev/null",
    "/dev/urandom",
)
_MOST_CHARACTERS = 200


def main() -> None:
    """Read a job from standard input, do it, and answer on what was standard output."""
    job = json.load(sys.stdin.buffer)
    say = partial(_say, os.dup(1), job.pop("token"))
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nothing, stream)
    say(_confined(job))
    names = _new_module()
    broken = _attempt(job["code"], names)
    for index, test in enumerate(job["tests"]):
        say({"test": index} | (broken or _attempt(test, names) or {"passed": True}))
    os._exit(0)  # nothing that the program has left for later runs


def _confined(job: dict[str, Any]) -> dict[str, bool]:
    """Give up whatever the system lets go of; returns what it did."""
    scratch, user, group = Path.cwd(), os.getuid(), os.getgid()
    limits = Limits(**job["limits"])
    network = leave_network(as_stranger=True)
    # Where a directory cannot be bounded, nothing may be written to it.
    writable = [scratch] if network and mount_scratch(scratch, job["scratch_bytes"], user, group) else []
    readable = [place for place in map(Path, (*sys.path, *_SYSTEM)) if place.is_absolute()]
    gc.collect()
    return {
        "network_cut": network,
        "memory_limited": apply_limits(limits),
        "files_confined": confine_files(writable, [*writable, *readable]),
        "processes_barred": bar_processes(),
    }


def _new_module() -> dict[str, Any]:
    """Return the names of a new module, which is where classes of the program say that they come from.

    Our own can be imported no longer: a program does not find them anywhere else either.
    """
    for name in [name for name in sys.modules if name.partition(".")[0] == "wmtp"]:
        del sys.modules[name]
    module = ModuleType("candidate")
    sys.modules["candidate"] = module
    return module.__dict__


def _attempt(code: str, names: dict[str, Any]) -> dict[str, Any] | None:
    """Run code; returns what it raised, `SystemExit` and the like included, or None."""
    with _Caught() as caught:
        exec(compile(code, "candidate", "exec", dont_inherit=True), names)  # noqa: S102  what this process is for
    if caught.error is None:
        return None
    is_limited = isinstance(caught.error, MemoryError) or getattr(caught.error, "errno", None) in _LIMITED
    told = ["an error that cannot be shown"]
    with _Caught():  # how it is shown is up to the program too
        told = traceback.format_exception_only(caught.error)[-1].splitlines() or told
    return {"error": told[0][:_MOST_CHARACTERS], "limited": is_limited}


class _Caught:
    """Keeps whatever is raised inside."""

    error: BaseException | None = None

    def __enter__(self) -> _Caught:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        self.error = error
        return True


def _say(answer: int, token: str, facts: dict[str, Any]) -> None:
    os.write(answer, json.dumps({"token": token, **facts}).encode() + b"\n")
