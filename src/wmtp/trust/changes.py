"""What changed in a checkpoint's file since the operator last agreed to one of its name."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

from wmtp.trust.consent import CodeFile
from wmtp.trust.records import ConsentRecord, kept_copy, recorded_consent

# The author of a file could make a comparison take hours; the longest modeling file of transformers has 7,000 lines.
_MAX_LINES = 20_000
_MAX_PAIRS = 2_000_000


@dataclass(frozen=True)
class CodeChange:
    """A file and the one that it takes the place of.

    Attributes:
        digest: `sha256:<hex>` of the earlier file.
        record: What is recorded of the consent to it.
        old_size_bytes: Its size; None: no true copy of it was kept.
        diff: A unified diff from it to the file as it is now, not made safe to print; None: without a copy, or when
            the two are too long to compare.
        new_imports: What it imports now and did not then; empty without a diff.
    """

    digest: str
    record: ConsentRecord
    old_size_bytes: int | None = None
    diff: tuple[str, ...] | None = None
    new_imports: tuple[str, ...] = ()

    @property
    def num_added(self) -> int:
        """Lines that were added."""
        return sum(line.startswith("+") for line in (self.diff or ())[2:])

    @property
    def num_removed(self) -> int:
        """Lines that were removed."""
        return sum(line.startswith("-") for line in (self.diff or ())[2:])


def change_since_consent(code: CodeFile) -> CodeChange | None:
    """Return how a file differs from the one that it takes the place of; None where none was agreed to before.

    That is the last one of this name that was agreed to at the same address; failing that, in a checkpoint whose
    directory has the same name.

    Raises:
        TrustError: If recorded consent cannot be read.
    """
    change = _earlier(code)
    if change is None or (data := kept_copy(change.digest)) is None:
        return change
    old = CodeFile(code.name, data, change.record.seen_at)
    diff = _diff(_lines(old), _lines(code))
    new_imports = [] if diff is None else sorted(set(code.imports) - set(old.imports))
    return replace(change, old_size_bytes=len(data), diff=diff, new_imports=tuple(new_imports))


def _earlier(code: CodeFile) -> CodeChange | None:
    newest_first = sorted(recorded_consent().items(), key=lambda found: found[1].recorded)[::-1]
    others = [CodeChange(*found) for found in newest_first if found[0] != code.digest and found[1].file == code.name]
    here = [found for found in others if found.record.seen_at in (code.address, code.where)]
    directory = _directory_name(code.address, code)
    alike = [found for found in others if directory and _directory_name(found.record.seen_at, code) == directory]
    return next(iter(here + alike), None)


def _directory_name(address: str, code: CodeFile) -> str:
    return PurePosixPath(address.removesuffix(code.name)).name


def _lines(code: CodeFile) -> list[str]:
    # Not splitlines(): it also splits where a terminal and Python do not.
    return code.data.decode("utf-8", errors="surrogateescape").split("\n")


def _diff(old: Sequence[str], new: Sequence[str]) -> tuple[str, ...] | None:
    counts_old, counts_new = Counter(old), Counter(new)
    num_pairs = sum(count * counts_new[line] for line, count in counts_old.items())
    if len(old) + len(new) > _MAX_LINES or num_pairs > _MAX_PAIRS:
        return None
    return tuple(difflib.unified_diff(old, new, "agreed to before", "now", lineterm=""))
