"""Runs cases through a zygote, and says what is wrong with what came of each."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hostile.case import Case
from hostile.tree import everything_below, sha256, snapshot

WALL_SECONDS = 300  # for what hangs only
MAX_EFFORT = 100  # in units of `hostile.calls.UNIT`; a good checkpoint takes about one
GROWN_BYTES = 500 << 20
LINE_CHARACTERS, LINES = 5000, 90
_TESTS = Path(__file__).resolve().parents[1]


class Zygote:
    """The process that forks for each case; a context manager."""

    def __enter__(self) -> Zygote:
        self._home = TemporaryDirectory()
        environment = {
            key: value for key, value in os.environ.items() if not key.startswith(("TRANSFORMERS_", "WMTP_", "HF_"))
        }
        environment |= {
            **dict.fromkeys(("OMP_NUM_THREADS", "PYTHONDONTWRITEBYTECODE", "HF_HUB_DISABLE_TELEMETRY"), "1"),
            **dict.fromkeys(("HOME", "HF_HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME"), self._home.name),
            "OBJC_DISABLE_INITIALIZE_FORK_SAFETY": "YES",  # macOS would stop a fork that uses a framework
            "PYTHONPATH": os.pathsep.join(filter(None, [str(_TESTS), os.environ.get("PYTHONPATH", "")])),
        }
        # Without -P the current directory, which may be anything, would be searched first.
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "hostile.zygote"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            text=True,
        )
        self._unit: float | None = None
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.close()
        try:
            self._process.wait(timeout=WALL_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._home.cleanup()

    def effort(self, cpu_seconds: float) -> float:
        """How many units of work, as this process does them, take so much processor time."""
        if self._unit is None:
            self._unit = max(self._unit_seconds() for _ in range(3))
        return cpu_seconds / self._unit

    def _unit_seconds(self) -> float:
        places = {"directory": self._home.name, "work": self._home.name, "uri": "", "inside": False}
        request = {"call": "unit", "keywords": {}, "environment": {}, "seconds": WALL_SECONDS, **places}
        return float(self.ask(request)["seconds"])

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """Run one request."""
        assert self._process.stdin
        assert self._process.stdout
        print(json.dumps(request), file=self._process.stdin, flush=True)
        line = self._process.stdout.readline()
        assert line, "the zygote is gone"
        answer: dict[str, Any] = json.loads(line)
        return answer


@dataclass(frozen=True)
class Outcome:
    """What came of a case.

    Attributes:
        answer: What the process said and how it ended; see `hostile.zygote`.
        effort: How much processor time it took, in units.
        has_run: Whether a payload touched the marker.
        changed: Paths that are not as they were written.
        written: SHA-256 of every tensor of the safetensors files, by name.
    """

    answer: dict[str, Any]
    effort: float
    has_run: bool
    changed: list[str]
    written: dict[str, str]


def run_case(zygote: Zygote, case: Case, work: Path, *, seconds: float = WALL_SECONDS, **call: Any) -> Outcome:
    """Write a case below `work`, load it, and look at what was left behind; `call` replaces parts of the request."""
    directory, marker = work / "checkpoint", work / "marker"
    directory.mkdir(parents=True)
    case.write(directory, marker)
    before = snapshot(work)
    keywords = json.loads(json.dumps(dict(case.keywords)).replace("{directory}", str(directory)))
    if case.consent:
        keywords["allow_code"] = {name: f"sha256:{sha256((directory / name).read_bytes())}" for name in case.consent}
    request = {"call": case.call, "uri": case.uri.replace("{directory}", str(directory)), "keywords": keywords, **call}
    fixed = {"directory": str(directory), "work": str(work), "seconds": seconds, "inside": case.inside}
    environment = {name: value.replace("{directory}", str(directory)) for name, value in case.environment.items()}
    answer = zygote.ask({**request, **fixed, "environment": environment})
    has_run = marker.exists()
    marker.unlink(missing_ok=True)
    after = snapshot(work)
    changed = sorted(name for name in {*before, *after} if name != "." and before.get(name) != after.get(name))
    written = dict(_tensors(directory)) if case.is_good else {}
    return Outcome(answer, zygote.effort(answer["seconds"]), has_run, changed, written)


def faults_of(case: Case, outcome: Outcome) -> list[str]:
    """Return every rule that was broken, in words; none when all is well."""
    answer = outcome.answer
    faults = [
        *(["the payload ran"] if outcome.has_run else []),
        *([f"changed on disk: {outcome.changed}"] if outcome.changed else []),
        *([f"printed: {answer['printed']!r}"] if answer["printed"] else []),
        *([f"did: {answer['events']}"] if answer.get("events") else []),
        *([f"left behind in the process: {answer['meddled']}"] if answer.get("meddled") else []),
        *([f"took {outcome.effort:.0f} units of work"] if outcome.effort > MAX_EFFORT else []),
        *([f"grew by {answer['grown_bytes'] >> 20} MiB"] if answer["grown_bytes"] > GROWN_BYTES else []),
    ]
    return [*faults, *(_control_faults(answer, outcome.written) if case.is_good else _refusal_faults(case, answer))]


def _refusal_faults(case: Case, answer: dict[str, Any]) -> list[str]:
    expected = "summary" if case.errors == {"Summary"} else "refused"
    if answer["outcome"] != expected:
        return [f"not {expected} but: {answer['outcome']}"]
    return [*_error_faults(case, answer), *_text_faults(case, answer["text"])]


def _error_faults(case: Case, answer: dict[str, Any]) -> Iterator[str]:
    text = answer["text"]
    if not answer["is_typed"]:
        yield f"raised {answer['error']}: {text[:500]!r}"
    elif answer["error"] not in case.errors:
        yield f"refused with {answer['error']}, not {sorted(case.errors)}: {text[:500]!r}"
    if answer["outcome"] == "refused" and answer["is_typed"] and not answer["hint"].strip():
        yield "has no hint"


def _text_faults(case: Case, text: str) -> Iterator[str]:
    if missing := [name for name in case.naming if not any(way in text for way in name.split("|"))]:
        yield f"does not name {missing}: {text[:1000]!r}"
    if repeated := [secret for secret in case.hiding if secret in text]:
        yield f"repeats {repeated}: {text[:500]!r}"
    if unsafe := sorted({c for c in text if not _is_safe(c, case)}):
        yield f"shows {unsafe}: {text[:500]!r}"
    lines = text.split("\n")
    if len(lines) > LINES or max(map(len, lines)) > LINE_CHARACTERS:
        yield f"has {len(lines)} lines, the longest of {max(map(len, lines))} characters"


def _is_safe(character: str, case: Case) -> bool:
    # An address is the operator's own: letters of any alphabet may stand in it.
    return character == "\n" or (character.isprintable() and (character.isascii() or case.kind == "uris"))


def _control_faults(answer: dict[str, Any], written: dict[str, str]) -> Iterator[str]:
    if answer["outcome"] != "loaded":
        yield f"a good checkpoint was not loaded: {answer}"
        return
    if answer.get("homeless"):
        yield f"values that stand nowhere in the checkpoint: {answer['homeless']}"
    held = answer.get("parameters", {})
    if wrong := [name for name, digest in held.items() if written.get(name, digest) != digest]:
        yield f"other values than were written: {wrong}"


def _tensors(directory: Path) -> Iterator[tuple[str, str]]:
    for path in (path for path in everything_below(directory) if path.name.endswith(".safetensors")):
        data = path.read_bytes()
        start = 8 + int.from_bytes(data[:8], "little")
        for name, entry in json.loads(data[8:start]).items():
            if name != "__metadata__":
                first, end = entry["data_offsets"]
                yield name, sha256(data[start + first : start + end])
