"""One run that is killed again and again, at random moments, and looked at after each."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from pathlib import Path

from run_files import Ask, RunFiles, contents
from wmtp.errors import IntegrityError
from wmtp.publishing.publish import verify_published
from wmtp.training.saved_steps import published_checkpoints

KILLED = "by signal 9"


@dataclass
class Survived:
    """What became of a run that was killed again and again.

    Attributes:
        kills: How often it was killed.
        in_stage: How many of these while value heads alone were trained.
        faults: Each thing that was lost, damaged or different; none where all is well.
    """

    kills: int = 0
    in_stage: int = 0
    faults: list[str] = field(default_factory=list)


def survived(files: RunFiles, ask: Ask, event: str, *, kills: int, most: int, seed: int) -> Survived:
    """Kill a run so often, each process at a random one of its first `most` events, then let it come to its end.

    Args:
        files: Its model, data and recipe; a run of them that nobody kills is made first.
        ask: Starts a process of it.
        event: "forward" or "file", as `killed_runs` counts them.
        kills: How often; fewer where the run comes to its end before.
        most: Of the events until a process is killed.
        seed: Of the random moments.
    """
    place, chance, found = f"{event}-{seed}", random.Random(seed), Survived()
    if not files.run("whole").exists():
        ask(files, "whole", False, "", 0)
    known: set[Path] = set()
    for number in range(kills + 1):
        is_last = number == kills
        answer = ask(files, place, bool(known), "" if is_last else event, chance.randint(1, most))
        known = _looked_at(files.run(place), known, found)
        if answer["ended"] != KILLED:
            break
        found.kills += 1
        found.in_stage += not any(path.parent == files.run(place) for path in known)
    if answer["ended"] != "finished":
        found.faults.append(answer["ended"])
    expected, got = contents(files.run("whole")), contents(files.run(place))
    found.faults += [f"{name} differs" for name in {**expected, **got} if expected.get(name) != got.get(name)]
    return found


def _looked_at(run: Path, known: set[Path], found: Survived) -> set[Path]:
    """Return the checkpoints that are there, once it is told which are gone and which are not whole."""
    there = set(published_checkpoints(run)) if run.exists() else set()
    # Of the stage of value heads only the newest is kept, and none once it has served.
    found.faults += [f"{path} is gone" for path in known - there if path.parent == run]
    for path in there:
        try:
            verify_published(path)
        except IntegrityError as error:
            found.faults.append(error.problem)
    return there
