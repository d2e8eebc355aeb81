"""What becomes of hostile and broken checkpoints: wmtp and `from_pretrained` over the same files, in the same runner.

    python benchmarks/trust.py             # some minutes, prints markdown
    python benchmarks/trust.py --verbose   # and one line for each case

The corpus is that of tests/hostile: each case is a directory written by hand with one fault, or a good control. Only
those count here that transformers reads as well: a plain Hugging Face directory whose fault is not one of metadata.json
alone. What is a fault is for the rules of wmtp to say; transformers lets some through by design, such as tensors that
no parameter needs. Each load runs in a forked process with limits on time and memory; a payload touches a marker file,
and does nothing else.
"""

from __future__ import annotations

import argparse
import platform
import re
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from hostile.case import KINDS, Case
from hostile.corpus import CASES
from hostile.runner import Outcome, Zygote, run_case
from hostile.tree import remove

_CAREFUL = {"trust_remote_code": False, "use_safetensors": True}
# What libraries raise on purpose; anything else is an accident inside them.
_ON_PURPOSE = {"OSError", "ValueError", "ImportError", "RuntimeError", "SafetensorError", "StrictDataclassError"}
_CULPRIT = re.compile(r"[\w-]+(?:\.[\w-]+)*\.(?:json|safetensors|bin|py|model|weight|bias)")


@dataclass(frozen=True)
class Contender:
    """A way to load.

    Attributes:
        name: Its column.
        call: Parts of the request for a case; see `hostile.runner.run_case`.
    """

    name: str
    call: Callable[[Case], dict[str, Any]]


CONTENDERS = (
    Contender("`from_pretrained(dir)`", lambda case: {"call": "from_pretrained", "keywords": {"peer": case.peer}}),
    Contender(
        "`… trust_remote_code=False, use_safetensors=True`",
        lambda case: {"call": "from_pretrained", "keywords": {"peer": case.peer, **_settings(case)}},
    ),
    Contender("wmtp", lambda _: {}),
)


def _settings(case: Case) -> dict[str, Any]:
    # A tokenizer has no weights to pick a format for.
    return {"trust_remote_code": False} if case.peer == "AutoTokenizer" else _CAREFUL


def is_accepted(case: Case, found: Outcome) -> bool:
    """Whether a checkpoint with a fault was loaded."""
    return not case.is_good and found.answer["outcome"] == "loaded"


def is_silent(case: Case, found: Outcome) -> bool:
    """Whether that happened without a word on the terminal."""
    return is_accepted(case, found) and not found.answer["printed"].strip()


def is_invented(_: Case, found: Outcome) -> bool:
    """Whether the model has values that stand nowhere in its checkpoint."""
    return bool(found.answer.get("homeless"))


def is_foreign(_: Case, found: Outcome) -> bool:
    """Whether a file outside the directory was read."""
    return bool(found.answer.get("from_outside")) or "opened outside" in str(found.answer.get("events"))


def is_online(_: Case, found: Outcome) -> bool:
    """Whether the load of a local directory asked for the network."""
    return "socket." in str(found.answer.get("events"))


def is_named(case: Case, found: Outcome) -> bool:
    """Whether a refusal, or what was printed with it, names the file or the tensor at fault."""
    culprits = {*_CULPRIT.findall(" ".join(case.naming)), *"|".join(case.naming[:1]).split("|")}
    said = found.answer.get("text", "") + found.answer["printed"]
    return is_refused(case, found) and any(culprit in said for culprit in culprits)


def is_refused(case: Case, found: Outcome) -> bool:
    """Whether a checkpoint with a fault was refused by an error."""
    return not case.is_good and found.answer["outcome"] == "refused"


def is_accident(_: Case, found: Outcome) -> bool:
    """Whether the error was one that nobody raised on purpose, or no answer came at all."""
    answer = found.answer
    if answer["outcome"] == "refused":
        return not answer["is_typed"] and not _ON_PURPOSE & set(answer["bases"])
    return answer["outcome"] != "loaded"


def is_down(_: Case, found: Outcome) -> bool:
    """Whether the process crashed, hung, or ran out of the memory it may use."""
    outcome = found.answer["outcome"]
    return outcome not in ("loaded", "refused") or found.answer.get("error") == "MemoryError"


def is_turned_away(case: Case, found: Outcome) -> bool:
    """Whether a good checkpoint did not load."""
    return case.is_good and found.answer["outcome"] != "loaded"


ROWS: dict[str, Callable[[Case, Outcome], bool]] = {
    "accepted although broken": is_accepted,
    "… without a word": is_silent,
    "returned values that stand nowhere in the checkpoint": is_invented,
    "read a file outside the directory": is_foreign,
    "asked for the network": is_online,
    "ran code of the checkpoint": lambda _, found: found.has_run,
    "wrote into the directory": lambda _, found: bool(found.changed),
    "refused by an error": is_refused,
    "… that names the file or tensor at fault": is_named,
    "errors by accident, crashes, hangs": is_accident,
    "… crashes, hangs, memory beyond 2 GiB": is_down,
    "good checkpoints turned away": is_turned_away,
}


def run_all(cases: list[Case], seconds: float) -> dict[str, list[Outcome]]:
    """Return, for each contender, what came of each case; the contenders take turns."""
    found: dict[str, list[Outcome]] = {contender.name: [] for contender in CONTENDERS}
    with Zygote() as zygote:
        for case in cases:
            for contender in CONTENDERS:
                work = Path(tempfile.mkdtemp()).resolve()
                found[contender.name].append(run_case(zygote, case, work, seconds=seconds, **contender.call(case)))
                remove(work)
    return found


def print_table(first: str, names: list[str], lines: dict[str, list[int]]) -> None:
    """Print counts as markdown."""
    print(f"\n| {first} | {' | '.join(names)} |\n|{'---|' * (len(names) + 1)}")
    for what, counts in lines.items():
        print(f"| {what} | {' | '.join(map(str, counts))} |")


def report(cases: list[Case], found: dict[str, list[Outcome]]) -> None:
    """Print what was counted, over all cases and for each kind."""
    names = list(found)
    num_good = sum(case.is_good for case in cases)
    packages = ("wmtp", "transformers", "torch", "safetensors", "tokenizers")
    print(", ".join([*(f"{name} {version(name)}" for name in packages), f"Python {platform.python_version()}"]))
    print(f"\n{len(cases) - num_good} broken or hostile checkpoints and {num_good} good ones.")

    def count(claim: Callable[[Case, Outcome], bool], kind: str | None = None) -> list[int]:
        chosen = [place for place, case in enumerate(cases) if kind in (None, case.kind)]
        return [sum(claim(cases[place], found[name][place]) for place in chosen) for name in names]

    print_table("of these", names, {what: count(claim) for what, claim in ROWS.items()})
    kinds = {kind: sum(case.kind == kind and not case.is_good for case in cases) for kind in KINDS}
    by_kind = {f"{kind} ({number})": count(is_accepted, kind) for kind, number in kinds.items() if number}
    print_table("accepted although broken", names, by_kind)


def print_cases(cases: list[Case], found: dict[str, list[Outcome]]) -> None:
    """Print one line for each case: what each contender did."""
    for place, case in enumerate(cases):
        outcomes = [found[name][place].answer for name in found]
        words = [answer.get("error", answer["outcome"]) for answer in outcomes]
        print(f"{case.kind}: {case.name}: {' | '.join(words)}")


def main() -> None:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--verbose", action="store_true", help="one line for each case")
    parser.add_argument("--seconds", type=float, default=10, help="longer than this is a hang")
    parser.add_argument("--only", default="", metavar="WORD", help="cases whose kind or name has this in it")
    arguments = parser.parse_args()
    cases = [case for case in CASES if case.peer and arguments.only in f"{case.kind}: {case.name}"]
    found = run_all(cases, arguments.seconds)
    report(cases, found)
    if arguments.verbose:
        print()
        print_cases(cases, found)


if __name__ == "__main__":
    main()
