"""What the limited process runs first: it gives up the network, then limits itself, then opens the pickles.

Nothing but `confined.run_confined` starts it.
"""

from __future__ import annotations

import json
import os
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from wmtp.confinement.limits import Limits, apply_limits, confine_files, leave_network, release_reserve
from wmtp.errors import WmtpError

_MAX_TOLD_CHARACTERS = 4000
_MAX_NAMED = 1000


def main(job: Mapping[str, Any]) -> None:
    """Do a job and answer on what was standard output; everything else that is printed goes to standard error.

    Args:
        job: A `confined.Job` as plain values.
    """
    answer = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    at = {"file": ""}
    # Not an except clause: whatever a hostile file makes torch raise is told, and the process ends.
    sys.excepthook = lambda kind, error, trace: _tell(answer, at["file"], kind, error, trace)
    network_cut = leave_network()
    # Only now anything large, and all of it, as memory is limited from here on.
    from wmtp.authoring.pickles.opening import Work

    warnings.simplefilter("ignore")
    writes_confined = confine_files([Path(job["directory"]), Path.cwd()])
    memory_limited = apply_limits(Limits(**job["limits"]))
    work = Work(job, at)
    work.run()
    dropped = list(work.dropped)
    rest = [f"and {len(dropped) - _MAX_NAMED:,} more"] if len(dropped) > _MAX_NAMED else []
    facts = {"tensors": work.tensors, "same": work.same, "dropped": dropped[:_MAX_NAMED] + rest}
    how = {"network_cut": network_cut, "writes_confined": writes_confined, "memory_limited": memory_limited}
    _answer(answer, {"kind": "written", "unwrapped": work.unwrapped, **facts, **how})


def _tell(
    answer: IO[str], file: str, kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    if issubclass(kind, MemoryError):
        release_reserve()
    sys.__excepthook__(kind, error, trace)
    said = (error.problem, error.hint) if isinstance(error, WmtpError) else (str(error), "")
    problem, hint = (text[:_MAX_TOLD_CHARACTERS].encode("ascii", "backslashreplace").decode() for text in said)
    _answer(answer, {"kind": "failed", "file": file, "error": kind.__name__, "problem": problem, "hint": hint})


def _answer(answer: IO[str], facts: Mapping[str, Any]) -> None:
    # Whole or not at all: were it written piece by piece, an error on the way would follow half an answer.
    text = json.dumps(facts)
    answer.write(text)
    answer.close()
