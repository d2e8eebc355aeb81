"""What is known of one program that serves: which families of heads it reads, and what it asks of their checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Evidence(StrEnum):
    """How something is known of a program."""

    SEEN = "seen in a run"
    READ = "read in its source, not run"


class Modules(StrEnum):
    """What a program does with more than one module."""

    ALL = "runs all of them"
    FIRST = "runs the first one only"
    ONE = "takes one and no more"


@dataclass(frozen=True)
class Need:
    """A value that config.json must have.

    Attributes:
        key: The key, looked for in `text_config` first.
        value: What it must be.
        why: What happens otherwise.
        may_be_absent: An absent key means the right value.
    """

    key: str
    value: Any
    why: str
    may_be_absent: bool = False


@dataclass(frozen=True)
class Support:
    """How one program reads the heads of one family.

    Attributes:
        evidence: How that is known.
        architectures: The first entry of `architectures` must be one of these; empty: any.
        model_types: `model_type` must be one of these; empty: any of the family.
        modules: What it does with more than one module.
        absent_count: How many modules it takes for granted where no key says it; None: the key must be there.
        depths: The only depths of a trunk at which it finds the heads; empty: any.
        needs: Values that config.json must have.
        tensors: Tensors outside the heads that must be there.
    """

    evidence: Evidence = Evidence.READ
    architectures: tuple[str, ...] = ()
    model_types: tuple[str, ...] = ()
    modules: Modules = Modules.FIRST
    absent_count: int | None = None
    depths: tuple[int, ...] = ()
    needs: tuple[Need, ...] = ()
    tensors: tuple[str, ...] = ()


@dataclass(frozen=True)
class Program:
    """A program that serves models, in the version that is described here.

    Attributes:
        name: What it is called on the command line.
        label: Name and version, as messages say them.
        source: What was run or read, and when.
        drafts: The families whose heads it drafts with.
        reasons: Why it does not with some others.
        refused: Endings of names of heads without which it refuses to load; it starts in silence without the rest.
        on_zero: What it does when the count is 0 and heads are asked for.
        needs_class: It finds the family by `architectures`, so that the key cannot be absent.
        has_medusa: It serves Medusa heads.
        command: How heads are asked for; `{uri}` is the checkpoint.
    """

    name: str
    label: str
    source: str
    drafts: Mapping[str, Support]
    reasons: Mapping[str, str] = field(default_factory=dict)
    refused: tuple[str, ...] = ()
    on_zero: str = "drafts with nothing"
    needs_class: bool = True
    has_medusa: bool = False
    command: str = ""
