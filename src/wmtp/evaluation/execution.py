"""Running programs against their tests, each in a limited process of its own, several at a time."""

from __future__ import annotations

import json
import os
import secrets
import select
import subprocess
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import wmtp
from wmtp.confinement.limits import Limits
from wmtp.confinement.process import end_process, start_process
from wmtp.errors import TrustError
from wmtp.evaluation.outcomes import Outcome, read_outcome
from wmtp.evaluation.tasks import Program

_MOST_ANSWERED = 1 << 20
_STARTING_SECONDS = 20.0  # of Python itself, on a machine that is busy with others like it
# Without site-packages, and without ours once it has been imported.
_START = (
    "import sys; sys.path.insert(0, sys.argv[1]); from wmtp.evaluation.sandboxed import main; del sys.path[0]; main()"
)


@dataclass(frozen=True)
class RunLimits:
    """What a program and its tests may take together.

    Attributes:
        seconds: Of processor time.
        wall_seconds: From its start, waiting included.
        memory_bytes: Of address space beyond Python's own.
        file_bytes: Of any file, and of all its files where they are kept in memory.
    """

    seconds: int = 5
    wall_seconds: float = 15.0
    memory_bytes: int = 512 << 20
    file_bytes: int = 1 << 20


def run_tests(
    programs: Sequence[Program],
    *,
    allow_code_execution: bool,
    limits: RunLimits | None = None,
    workers: int | None = None,
) -> list[Outcome]:
    """Run programs that nobody has read against their tests; returns what came of each, in order.

    A program and its tests share an interpreter, in a process without network, environment, input, or any process
    beside it, as far as the system has these limits; `Outcome.confinement` says which held. A test counts only when
    the process has said, with a token drawn for this run, that it ran through: a program that ends it early, or
    prints that all is well, has passed nothing. One that is written against this very runner could find the token.

    Args:
        programs: What to run.
        allow_code_execution: Whether the operator agrees that it runs.
        limits: Of each program; None: the usual ones.
        workers: How many run at once, at most as many as there are processors; None: that many.

    Raises:
        TrustError: If the operator does not agree, or a process does not start: then nothing is said of its program.
    """
    if not allow_code_execution:
        raise TrustError(
            "tests run programs that a model or a stranger wrote, and nobody has agreed to that",
            hint="agree with allow_code_execution=True (--allow-code-execution); they run in a limited process",
        )
    most = os.cpu_count() or 1
    with ThreadPoolExecutor(min(workers or most, most)) as pool:
        return list(pool.map(partial(_run, limits=limits or RunLimits()), programs))


def _run(program: Program, limits: RunLimits) -> Outcome:
    token = secrets.token_hex(16)
    own = Limits(limits.memory_bytes, limits.seconds, limits.file_bytes)
    job = {"token": token, "code": program.code, "tests": program.tests, "limits": vars(own)}
    with tempfile.TemporaryDirectory(prefix="wmtp-tests-") as scratch:
        arguments = ["-S", "-c", _START, str(Path(wmtp.__file__).parent.parent)]
        process = start_process(
            arguments, scratch, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        try:
            answer, in_time = _talk(process, json.dumps({**job, "scratch_bytes": limits.file_bytes}).encode(), limits)
        finally:
            status = end_process(process)
    return read_outcome(answer, token, len(program.tests), status if in_time else None)


def _talk(process: subprocess.Popen[bytes], job: bytes, limits: RunLimits) -> tuple[bytes, bool]:
    """Give a process its job, and return what it answered until its end, and whether it ended in time.

    It reads its job before anything else. More of an answer than tests can give is the program's, and ends it.
    """
    assert process.stdin is not None
    assert process.stdout is not None
    with process.stdin, process.stdout:
        with suppress(BrokenPipeError):  # it has ended already, and its answer will lack what a start says
            process.stdin.write(job)
            process.stdin.close()
        answer, ends_at = bytearray(), time.monotonic() + _STARTING_SECONDS + limits.wall_seconds
        waiting = select.poll()  # not select(), which knows the first 1,024 files of a process only
        waiting.register(process.stdout, select.POLLIN)
        while len(answer) < _MOST_ANSWERED:
            left = ends_at - time.monotonic()
            if left <= 0 or not waiting.poll(1000 * left):
                return bytes(answer), False
            piece = os.read(process.stdout.fileno(), 1 << 16)
            if not piece:
                break
            if not answer:  # it has started: its first line says what it has given up
                ends_at = time.monotonic() + limits.wall_seconds
            answer += piece
        return bytes(answer), True
