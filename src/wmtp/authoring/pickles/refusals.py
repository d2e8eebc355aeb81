"""Why a pickle could not be opened, from what the process that tried has said or how it ended."""

from __future__ import annotations

import errno
import os
import pickletools
import re
import signal

from wmtp.confinement.limits import Limits
from wmtp.errors import CheckpointError, FormatError, StorageError, TrustError, WmtpError
from wmtp.untrusted import show

_OUR_OWN: dict[str, type[WmtpError]] = {kind.__name__: kind for kind in (CheckpointError, FormatError, TrustError)}
_SHOWN_CHARACTERS = 1000
_REFUSED_GLOBAL = re.compile(
    r"GLOBAL (?P<a>.+?) was not an allowed global|unsupported GLOBAL (?P<b>.+?) whose module"
    r"|(?P<c>``torch\.(?:nested|distributed)\S*) .*must be imported",
    re.DOTALL,
)
_REFUSED_CALL = re.compile(
    r"Trying to call reduce for unrecognized function (.+?)(?:\n|$)|Can only create new object for .* but got (.+?)"
    r"(?:\n|$)|Can only build .* but got (.+?)(?:\n|$)"
)
_OPERAND = re.compile(r"Unsupported operand (\d+)")
_NOT_WEIGHTS = (
    "nothing in it was run. Get the weights as safetensors; of a model of your own, save model.state_dict() and nothing"
    " else"
)


def refusal(error: str, problem: str, hint: str, *, where: str, limits: Limits) -> WmtpError:
    """Return the error for what the process has said.

    Args:
        error: The name of its exception.
        problem: What the exception said.
        hint: The next step, where the exception is one of ours.
        where: The file.
        limits: What it was allowed.
    """
    if error in _OUR_OWN:
        return _OUR_OWN[error](f"{where}: {_sentence(problem)}", hint=_sentence(hint))
    if error == MemoryError.__name__:
        return memory_error(where, limits)
    for read in (_of_memory, _of_disk, _of_globals, _of_format):
        if found := read(problem, where, limits):
            return found
    said = ": ".join(filter(None, (error, problem.strip().partition("\n")[0])))
    return FormatError(
        f"{where}: not weights as torch.save writes them ({_sentence(said)})",
        hint="the file is damaged or something else: copy it again from its source; nothing in it was run",
    )


def ended_error(status: int | None, talk: str, *, where: str, limits: Limits) -> WmtpError:
    """Return the error for a process that ended without an answer.

    Args:
        status: As `subprocess` gives it: negative for a signal; None when it was stopped, as time was up.
        talk: The last line that it printed.
        where: The source.
        limits: What it was allowed.
    """
    if status in (None, -signal.SIGXCPU):
        return CheckpointError(
            f"{where}: opening it took more than {limits.seconds:,} seconds, the limit on time",
            hint="allow more with time_limit_seconds (--time-limit) if you trust the file; a pickle can be made to"
            " take for ever",
        )
    said = f" after saying {show(talk)}" if talk else ""
    if status is not None and status < 0:
        return CheckpointError(
            f"{where}: the process that opened it was ended by {_signal_name(-status)}{said}; it was allowed"
            f" {limits.memory_bytes:,} bytes of memory",
            hint="this happens when memory runs out: allow more with memory_limit_bytes (--memory-limit) if you trust"
            " the file; or the file is made to break torch",
        )
    return CheckpointError(
        f"{where}: the process that opened it ended with status {status}{said}",
        hint="check that this Python can import torch: 'wmtp env'",
    )


def memory_error(where: str, limits: Limits) -> WmtpError:
    """Return the error for a pickle that wants more memory than it may have."""
    return CheckpointError(
        f"{where}: opening it takes more than {limits.memory_bytes:,} bytes, the limit on memory",
        hint="allow more with memory_limit_bytes (--memory-limit) if you trust the file; the usual limit is twice the"
        " size of what is opened at once and 1 GiB more",
    )


def _of_memory(problem: str, where: str, limits: Limits) -> WmtpError | None:
    words = ("can't allocate memory", "annot allocate memory", "bad_alloc", "unable to mmap")
    return memory_error(where, limits) if any(word in problem for word in words) else None


def _of_disk(problem: str, where: str, limits: Limits) -> WmtpError | None:
    if os.strerror(errno.EFBIG) in problem:
        return CheckpointError(
            f"{where}: its tensors take more than {limits.output_bytes:,} bytes as safetensors, the limit on a file",
            hint="the pickle claims more data than it holds: get the weights from a source that you trust",
        )
    if os.strerror(errno.ENOSPC) in problem:
        return StorageError(f"{where}: no space is left where its tensors are written", hint="free some, then repeat")
    return None


def _of_globals(problem: str, where: str, limits: Limits) -> WmtpError | None:  # noqa: ARG001  one form for all
    if match := _REFUSED_GLOBAL.search(problem):
        name = next(filter(None, match.groups())).strip("`")
        name = name if "." in name else f"builtins.{name}"  # torch leaves that module's name out
        return TrustError(f"{where}: the pickle asks for {show(name)}, which weights do not need", hint=_NOT_WEIGHTS)
    if match := _REFUSED_CALL.search(problem):
        name = next(filter(None, match.groups()))
        return TrustError(f"{where}: the pickle calls or makes {show(name)}", hint=_NOT_WEIGHTS)
    return None


def _of_format(problem: str, where: str, limits: Limits) -> WmtpError | None:  # noqa: ARG001  one form for all
    if match := _OPERAND.search(problem):
        known = {ord(opcode.code): opcode.name for opcode in pickletools.opcodes}
        named = f"{known.get(int(match[1]), 'unknown')} ({match[1]})"
        return FormatError(
            f"{where}: the pickle has the instruction {named}, which torch.save does not write",
            hint="save the weights again with torch.save and its usual pickle protocol; nothing in the file was run",
        )
    return None


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _sentence(text: str) -> str:
    # Foreign words in the middle of a sentence: escaped as everywhere, but longer than one value.
    escaped = "".join(c if " " <= c <= "~" else ascii(c)[1:-1] for c in text)
    return escaped if len(escaped) <= _SHOWN_CHARACTERS else escaped[: _SHOWN_CHARACTERS - 3] + "..."
