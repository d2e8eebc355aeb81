"""What a case of the corpus is: how its files are written, how it is loaded, and what must come of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

from hostile.bases import llama
from hostile.draft import Draft

KINDS = (
    *("metadata", "paths", "mapping", "tensors", "containers", "pickles", "code", "configuration", "tokenizer"),
    *("uris", "links", "locks", "json", "display", "commands", "good"),
)
CAUSAL = "AutoModelForCausalLM"
Change = Callable[[Draft], None]


class Write(Protocol):
    """Writes the files of a case; a payload among them touches `marker` if it ever runs, and does nothing else."""

    def __call__(self, directory: Path, marker: Path) -> None: ...


@dataclass(frozen=True)
class Case:
    """One checkpoint and what must come of loading it.

    Attributes:
        name: A sentence, in words joined by `-`; unique.
        kind: One of `KINDS`.
        write: Writes the files into a directory that exists and is empty.
        errors: Names of the error classes of wmtp that may refuse it; empty for a good control, which must load.
        naming: What the refusal must say: the file at fault first, then field, tensor or key, and what was found; where
            one of several words does, they are joined by `|`.
        hiding: What it must not repeat, such as a secret.
        uri: The address that is loaded, in which `{directory}` stands for the directory.
        call: What is called; see `hostile.calls`.
        keywords: Further arguments of that call, as JSON values; `{directory}` is filled in here as well.
        consent: Files whose SHA-256 goes into `allow_code`, as an operator would give who agreed to these very bytes.
        environment: Environment variables of the process.
        inside: The process starts in the directory, with the current directory on `sys.path`.
        peer: The class of transformers whose `from_pretrained` most people would call. None: the fault is one of
            metadata.json alone, or of a kind of which transformers rightly takes no notice.
    """

    name: str
    kind: str
    write: Write
    errors: frozenset[str] = frozenset()
    naming: tuple[str, ...] = ()
    hiding: tuple[str, ...] = ()
    uri: str = "{directory}"
    call: str = "load"
    keywords: Mapping[str, Any] = field(default_factory=dict)
    consent: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    inside: bool = False
    peer: str | None = None

    @property
    def is_good(self) -> bool:
        """Whether it must load."""
        return not self.errors


def drafted(base: Callable[[], Draft], *changes: Change) -> Write:
    """Return a writer of a good checkpoint with some things changed."""

    def write(directory: Path, marker: Path) -> None:
        draft = base()
        draft.marker = marker
        for change in changes:
            change(draft)
        draft.write(directory)

    return write


def slug(sentence: str) -> str:
    """Return a sentence as the name of a case."""
    kept = "".join(c if c.isalnum() or (c == "-" and after.isdigit()) else " " for c, after in pairwise(sentence + " "))
    return "-".join(kept.split())


def refusals(kind: str, *, base: Callable[[], Draft] = llama, **defaults: Any) -> Callable[..., Case]:
    """Return a function that makes the hostile cases of one kind: sentence, error classes, naming, then changes."""

    def refused(sentence: str, errors: str, naming: tuple[str, ...] | str, *changes: Change, **how: Any) -> Case:
        chosen: Callable[[], Draft] = how.pop("base", base)
        names = (naming,) if isinstance(naming, str) else naming
        write = drafted(chosen, *changes)
        return Case(slug(sentence), kind, write, frozenset(errors.split()), names, **{**defaults, **how})

    return refused
