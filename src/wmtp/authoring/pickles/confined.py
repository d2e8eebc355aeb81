"""Running the opening of pickles in a process of its own, and reading what it answers.

What that process answers is as untrusted as the pickle that it read: the answer is parsed strictly, its size is
bounded, and every word of it is escaped before it is shown.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Literal

from pydantic import ValidationError

from wmtp.authoring.pickles.refusals import ended_error, refusal
from wmtp.confinement.limits import Limits
from wmtp.confinement.process import end_process, start_process
from wmtp.errors import TrustError
from wmtp.faults import StrictModel, model_faults
from wmtp.untrusted import MAX_INDEX_BYTES, parse_json_object, plain

JOB_FILE = "job.json"
_STARTING_SECONDS = 60  # importing torch on a cold, busy machine
# What this process imports from is given, so that an editable install, or one found by other means, is found there too.
_START = (
    f"import json, sys; job = json.load(open({JOB_FILE!r})); "
    "sys.path += [place for place in job.pop('sys_path') if place not in sys.path]; "
    "from wmtp.authoring.pickles.unpickle import main; main(job)"
)


@dataclass(frozen=True)
class SourceFile:
    """A file of pickled weights to open.

    Attributes:
        name: How errors name it.
        path: Where it really is, links resolved.
        expected: The tensors that must be in it, where an index says so.
    """

    name: str
    path: str
    expected: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Job:
    """What the process is to do.

    Attributes:
        files: What to open, one after the other; all at once when they are merged.
        directory: Where to write; it is empty.
        key: The entry of each file that holds the tensors; None: as `unpickle` finds them.
        merge: The model's sizes, by which tensor-parallel shards are merged; None: nothing is merged.
        max_shard_bytes: Of tensor data in one written file.
        limits: What it may take.
    """

    files: tuple[SourceFile, ...]
    directory: str
    key: str | None
    merge: dict[str, int] | None
    max_shard_bytes: int
    limits: Limits


class WrittenTensor(StrictModel):
    """A tensor that was written: its name, its dtype in safetensors' notation, and the number of its file, from 1."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    part: int


class Reply(StrictModel):
    """What the process answers when it has done its work."""

    kind: Literal["written"]
    tensors: tuple[WrittenTensor, ...]
    same: dict[str, str]
    dropped: tuple[str, ...]
    unwrapped: str | None
    network_cut: bool
    writes_confined: bool
    memory_limited: bool


class Failure(StrictModel):
    """What the process answers when it could not."""

    kind: Literal["failed"]
    file: str
    error: str
    problem: str
    hint: str


def part_name(number: int) -> str:
    """Return the name under which the process writes one file; the parent gives it its own."""
    return f"part-{number:05d}.safetensors"


def run_confined(job: Job, *, where: str) -> Reply:
    """Carry out a job in a limited process, and return what it answers.

    Args:
        job: What to do.
        where: The source, for errors.

    Raises:
        WmtpError: If a pickle was refused, a limit was reached, or the process ended or answered otherwise than told.
    """
    with tempfile.TemporaryDirectory(prefix="wmtp-convert-") as scratch:
        places = [place for place in sys.path if Path(place).is_absolute()]
        text = json.dumps({**asdict(job), "sys_path": places})
        Path(scratch, JOB_FILE).write_text(text, encoding="utf-8")
        # Files, not pipes: they are bounded by the process's own limit, and nobody waits for the other's end.
        with tempfile.TemporaryFile() as answer, tempfile.TemporaryFile() as talk:
            status = _run(scratch, answer, talk, job.limits.seconds + _STARTING_SECONDS)
            if status not in (0, 1) or not answer.seek(0, os.SEEK_END):
                raise ended_error(status, _tail(talk), where=where, limits=job.limits)
            return _parsed(_whole(answer), where, job.limits)


def _run(scratch: str, answer: IO[bytes], talk: IO[bytes], seconds: int) -> int | None:
    process = start_process(["-c", _START], scratch, stdout=answer, stderr=talk)
    try:
        return process.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        return None
    finally:
        end_process(process)


def _whole(file: IO[bytes]) -> bytes:
    file.seek(0)
    return file.read(MAX_INDEX_BYTES + 1)


def _tail(file: IO[bytes]) -> str:
    size = file.seek(0, os.SEEK_END)
    file.seek(max(size - 2000, 0))
    lines = file.read(2000).decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else ""


def _parsed(data: bytes, where: str, limits: Limits) -> Reply:
    place = f"{where}: the answer of the process that opened it"
    document = parse_json_object(data, where=place, error=TrustError, max_bytes=MAX_INDEX_BYTES)
    try:
        if document.get("kind") == "failed":
            failure = Failure.model_validate_json(data)
        else:
            return Reply.model_validate_json(data)
    except ValidationError as error:
        faults = model_faults(error, Reply)
        raise TrustError(
            f"{place} {plain(str(faults[0]))}", hint="do not use this checkpoint: its pickle took over a process"
        ) from error
    file = f"{where}/{failure.file}" if failure.file else where
    raise refusal(failure.error, failure.problem, failure.hint, where=file, limits=limits)
