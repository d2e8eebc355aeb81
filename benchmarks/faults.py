"""Training runs that are killed with `kill -9` at random moments, each time gone on with: what is lost?

    python benchmarks/faults.py            # 300 kills: some ten minutes, prints markdown
    python benchmarks/faults.py --kills 30

A run of each algorithm saves after every step. Its process is killed when it has touched so many files of the run's
directory, which is in the middle of a save, or at so many forward passes of the model; then another process goes on
with `--resume`, and is killed in its turn. After every kill each checkpoint that has a final name is held to its
manifest. At the end every byte of every checkpoint is compared with those of a run that nobody has killed.
"""

from __future__ import annotations

import argparse
import math
import platform
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from run_files import Ask, RunFiles, processes
from run_kills import Survived, survived

_EVENTS = {"file": ("during saves", 55), "forward": ("during training", 5)}
_SHARES = {"file": 2, "forward": 1}  # of the kills, as many parts
_CHAIN = 25  # kills of one run


@dataclass(frozen=True)
class Row:
    """One algorithm, killed in one way."""

    algorithm: str
    when: str
    runs: int
    kills: int
    in_stage: int
    faults: list[str]


def main() -> None:
    """Kill runs, and print what was lost."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=300, help="in all, or a few more: two of three during saves")
    kills = parser.parse_args().kills
    rows = []
    for algorithm in ("baseline-mtp", "rho1-wmtp", "critic-wmtp"):
        with tempfile.TemporaryDirectory() as directory:
            rows += list(_killed(Path(directory), algorithm, math.ceil(kills / 3)))
    print(f"\nwmtp {version('wmtp')}, torch {version('torch')}, Python {platform.python_version()}, {sys.platform}\n")
    print("| algorithm | killed | runs | kills | before the model's first checkpoint | lost, damaged or different |")
    print("|---|---|---|---|---|---|")
    for row in rows:
        print(f"| {row.algorithm} | {row.when} | {row.runs} | {row.kills} | {row.in_stage} | {len(row.faults)} |")
    faults = [fault for row in rows for fault in row.faults]
    print(f"\n{sum(row.kills for row in rows)} kills, {len(faults)} faults")
    for fault in faults:
        print(f"- {fault}")
    sys.exit(bool(faults))


def _killed(directory: Path, algorithm: str, kills: int) -> Iterator[Row]:
    steps = 10 if algorithm == "critic-wmtp" else 30
    files = RunFiles(directory, algorithm, train={"save_steps": 1, "eval_steps": 50, "max_steps": steps})
    with processes() as ask:
        for event, (when, most) in _EVENTS.items():
            wanted = math.ceil(kills * _SHARES[event] / sum(_SHARES.values()))
            found = list(_chains(files, ask, event, most, wanted))
            yield Row(
                algorithm,
                when,
                len(found),
                sum(each.kills for each in found),
                sum(each.in_stage for each in found),
                [f"{algorithm}, {when}: {fault}" for each in found for fault in each.faults],
            )


def _chains(files: RunFiles, ask: Ask, event: str, most: int, wanted: int) -> Iterator[Survived]:
    done = seed = 0
    while done < wanted:
        seed += 1
        found = survived(files, ask, event, kills=min(_CHAIN, wanted - done), most=most, seed=seed)
        done += found.kills
        print(f"{files.algorithm}: {done} of {wanted} kills ({event})", file=sys.stderr)
        yield found


if __name__ == "__main__":
    main()
