"""Starting a process that will limit itself: what it is given, and that nothing of it is left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import IO

_KEPT_VARIABLES = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "SYSTEMROOT")


def start_process(
    arguments: Sequence[str],
    directory: str,
    *,
    stdin: int = subprocess.DEVNULL,
    stdout: IO[bytes] | int,
    stderr: IO[bytes] | int,
) -> subprocess.Popen[bytes]:
    """Start our own interpreter in a session of its own, with nothing of this process's environment.

    Args:
        arguments: Of the interpreter, behind those that keep out PYTHONPATH, the current directory and the user's site.
        directory: Where it starts, and its home and place for temporary files.
        stdin: What it reads; as a rule nothing.
        stdout: Where it writes.
        stderr: Where it complains.
    """
    return subprocess.Popen(  # noqa: S603  our own interpreter, and nothing foreign in its arguments
        [sys.executable, "-I", "-B", *arguments],
        cwd=directory,
        env=_environment(directory),
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        start_new_session=True,
    )


def end_process(process: subprocess.Popen[bytes]) -> int:
    """Kill whatever is left of a process and of its group; returns its status, negative for a signal."""
    # Until it is waited for, its number belongs to nobody else, and to its children's group.
    if process.returncode is None:
        with suppress(ProcessLookupError, PermissionError):  # macOS: nothing but a process that has ended
            os.killpg(process.pid, signal.SIGKILL)
    return process.wait()


def _environment(directory: str) -> dict[str, str]:
    kept = {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}
    one_thread = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    return {**kept, **one_thread, "HOME": directory, "TMPDIR": directory, "LANG": "C.UTF-8", "CUDA_VISIBLE_DEVICES": ""}
