"""A process that has imported everything once and forks for each case, so that a case costs milliseconds.

    python -m hostile.zygote

Reads one JSON request a line and answers each with one line. What a case does to its process (a crash, a hang, memory,
limits, what it prints) is seen from outside and cannot reach the next case.
"""

from __future__ import annotations

import gc
import json
import os
import resource
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any, BinaryIO

import torch
import transformers

from hostile.calls import CALLS, Summary, account_of
from wmtp.errors import WmtpError

_MEMORY_BYTES = 2 << 30
_RSS_UNIT = 1 if sys.platform == "darwin" else 1024
# Imported on first use: done here once instead of in every process.
_USED = ("LlamaForCausalLM", "GPT2LMHeadModel", "MistralForCausalLM", "LlamaForSequenceClassification", "AutoModel")
_NETWORK = ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname")
_PROCESSES = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn")


def main() -> None:
    """Answer requests until there are none."""
    _import_everything()
    gc.freeze()  # a collection in a child would copy every page that it looks at
    for line in sys.stdin:
        print(json.dumps(run(json.loads(line))), flush=True)  # noqa: T201


def _import_everything() -> None:
    import re2  # noqa: F401

    import wmtp.loaders.standardized
    import wmtp.models.mtp  # noqa: F401

    for name in _USED:
        getattr(transformers, name)


def run(request: dict[str, Any]) -> dict[str, Any]:
    """Fork, let the child make the call, and say what became of it."""
    reading, writing = os.pipe()
    before = _resident_bytes()
    with tempfile.TemporaryFile() as output:
        if (pid := os.fork()) == 0:
            os.close(reading)
            _child(request, writing, output)
        os.close(writing)
        expired = _kill_after(pid, request["seconds"])
        with os.fdopen(reading, "rb") as pipe:
            said = pipe.read()
        _, status, usage = os.wait4(pid, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
        output.seek(0)
        printed = output.read().decode(errors="backslashreplace")
    answer = json.loads(said) if said else {"outcome": "silence"}
    if os.WIFSIGNALED(status):
        answer = {"outcome": "hang" if expired else f"signal {os.WTERMSIG(status)}"}
    return {
        **answer,
        "printed": printed[-4000:],
        "seconds": usage.ru_utime + usage.ru_stime,
        "grown_bytes": max(0, usage.ru_maxrss * _RSS_UNIT - before),
    }


def _resident_bytes() -> int:
    """What this process has now; its peak, which a child does not inherit, may have been higher."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    except FileNotFoundError:  # macOS
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _RSS_UNIT


def _kill_after(pid: int, seconds: float) -> list[int]:
    expired: list[int] = []

    def kill(*_: object) -> None:
        expired.append(pid)
        os.kill(pid, signal.SIGKILL)

    signal.signal(signal.SIGALRM, kill)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    return expired


def _child(request: dict[str, Any], writing: int, output: BinaryIO) -> None:
    answer: dict[str, Any] = {"outcome": "silence"}
    try:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        _confine(request, output)
        answer = _call(request)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        data = json.dumps(answer).encode()
        while data:
            data = data[os.write(writing, data) :]
        os._exit(0)


def _confine(request: dict[str, Any], output: BinaryIO) -> None:
    os.setsid()
    with Path(os.devnull).open("rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    os.dup2(output.fileno(), 1)
    os.dup2(output.fileno(), 2)
    os.environ.update(request["environment"])
    if request["inside"]:
        os.chdir(request["directory"])
        sys.path.insert(0, "")
    if sys.platform == "linux":
        held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (held + _MEMORY_BYTES, held + _MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _call(request: dict[str, Any]) -> dict[str, Any]:
    events = _watch(Path(request["work"]))
    before = _state()
    try:
        model = CALLS[request["call"]](request["uri"], request["keywords"])
        answer: dict[str, Any] = {"outcome": "loaded"}
    except BaseException as error:  # noqa: BLE001  what it is, is the question
        answer, model = _described(error), None
    answer |= {
        "events": sorted(set(events)),
        "meddled": [name for name, now in _state().items() if now != before[name]],
    }
    if model is not None:
        answer |= account_of(model, Path(request["directory"]), Path(request["work"], "outside"))
    return answer


def _described(error: BaseException) -> dict[str, Any]:
    try:
        text = str(error)
    except BaseException as another:  # noqa: BLE001
        text = f"its text raised {type(another).__name__}"
    outcome = "summary" if isinstance(error, Summary) else "refused"
    return {
        "outcome": outcome,
        "error": type(error).__name__,
        "bases": [base.__name__ for base in type(error).__mro__],
        "is_typed": isinstance(error, WmtpError | Summary),
        "text": text,
        "hint": getattr(error, "hint", "") if isinstance(error, WmtpError) else "",
    }


def _watch(work: Path) -> list[str]:
    """Record what a load has no business doing; an audit hook stays for the rest of the process."""
    events: list[str] = []
    bait = f"{work}/outside"  # whatever lies there is for nobody to read

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event in _NETWORK:
            events.append(event)
            raise PermissionError(f"{event}: there is no network in a test")
        if event in _PROCESSES:
            events.append(event)
        elif event == "pickle.find_class":
            events.append(f"unpickled {arguments[0]}.{arguments[1]}"[:200])
        elif event == "open" and isinstance(arguments[0], str | bytes):
            path = os.path.realpath(os.fsdecode(arguments[0]))
            if path.startswith(bait):
                events.append(f"opened {path.removeprefix(f'{work}/')}")

    sys.addaudithook(hook)
    return events


def _state() -> dict[str, Any]:
    """What loading must leave as it was in the process."""
    return {
        "torch's default dtype": str(torch.get_default_dtype()),
        "nn.Module.register_parameter": id(torch.nn.Module.register_parameter),
        "torch.nn.init": id(torch.nn.init.normal_),
        "sys.path": list(sys.path),
        "sys.meta_path": [id(finder) for finder in sys.meta_path],
        "the current directory": os.getcwd(),  # noqa: PTH109
        "the environment": dict(os.environ),
    }


if __name__ == "__main__":
    main()
