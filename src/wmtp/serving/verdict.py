"""The answer: what a program would do with a checkpoint's heads, or all that stands in the way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from wmtp.errors import CheckpointError
from wmtp.serving.programs import Evidence, Program
from wmtp.untrusted import first_few
from wmtp.wording import counted

MEDUSA = "medusa"


@dataclass(frozen=True)
class Obstacle:
    """One thing by which a program would not draft, or not with what was trained.

    Attributes:
        file: The file of the checkpoint at fault.
        problem: The field or tensor, and what was found.
        hint: What to do about it.
    """

    file: str
    problem: str
    hint: str


@dataclass(frozen=True)
class Verdict:
    """A program would load these heads and draft with them.

    Attributes:
        program: The program and its version.
        heads: What they are: a family of native heads, or `medusa`.
        num_modules: How many there are.
        evidence: How it is known that the program drafts with such heads.
        conventions: How the heads join hidden state and embedding, as far as known.
        notes: What a reader should know, and that stands in nothing's way.
        command: How the program is asked to draft.
    """

    program: Program
    heads: str
    num_modules: int
    evidence: Evidence
    conventions: dict[str, Any]
    notes: tuple[str, ...]
    command: str

    def to_dict(self) -> dict[str, Any]:
        """Return the verdict as plain values."""
        facts = asdict(self)
        del facts["program"]
        return {"program": self.program.name, "version": self.program.label, "source": self.program.source, **facts}

    def summary(self, where: str) -> list[str]:
        """Return the lines that a person reads."""
        kind = "head" if self.heads == MEDUSA else "module"
        what = f"{counted(self.num_modules, kind)} ({self.heads})"
        return [
            f"{where}: {self.program.label} would load {what} and draft with them",
            *self.notes,
            f"how that is known: {self.evidence.value}; {self.program.source}",
            f"ask for them: {self.command}",
        ]


def refuse(where: str, program: Program, obstacles: Sequence[Obstacle]) -> None:
    """Raise CheckpointError with everything that stands in the way; nothing does: return.

    Raises:
        CheckpointError: Naming file, field and what was found, each with the next step.
    """
    if not obstacles:
        return
    if len(obstacles) == 1:
        (only,) = obstacles
        raise CheckpointError(f"{where}/{only.file}: {only.problem}", only.hint)
    raise CheckpointError(
        f"{where}: {program.label} would not draft with these heads: {len(obstacles)} things stand in the way",
        hint=f"mend each, then ask again: wmtp validate {where} --for {program.name}",
        faults=first_few([f"{one.file}: {one.problem}; {one.hint}" for one in obstacles]),
    )
