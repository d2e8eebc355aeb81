"""What is told of a checkpoint that was moved: its files, what they were held to, and what stayed where it was."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from wmtp.untrusted import show_all
from wmtp.wording import file_count, size


@dataclass(frozen=True)
class MovedFile:
    """A file that was fetched or pushed.

    Attributes:
        name: Relative to the checkpoint.
        size_bytes: Its size.
        sha256: What it was found to be, in hexadecimal digits.
        verified_by: Who said before that it must be so: `manifest.json`, `metadata.json`, `the lock`, `the Hub`.
        was_here: Whether no byte of it went through the network.
    """

    name: str
    size_bytes: int
    sha256: str
    verified_by: tuple[str, ...]
    was_here: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain values."""
        return {**vars(self), "verified_by": list(self.verified_by)}


@dataclass(frozen=True)
class MoveReport:
    """What was moved; how it was, each direction tells.

    Attributes:
        uri: The address: from where it was fetched, or where it is now.
        path: The directory on this machine.
        files: What was moved, by name.
        seconds: How long it took.
        left_out: What lies at the source and was not moved, as far as that is known.
    """

    uri: str
    path: str
    files: tuple[MovedFile, ...]
    seconds: float
    left_out: tuple[str, ...]

    @property
    def num_bytes(self) -> int:
        """Bytes of all files."""
        return sum(file.size_bytes for file in self.files)

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain values."""
        return {**vars(self), "num_bytes": self.num_bytes, "files": [file.to_dict() for file in self.files]}

    @property
    def amount(self) -> str:
        """How much it was, and how long it took, in words."""
        return f"{file_count(len(self.files))}, {size(self.num_bytes)} in {self.seconds:.1f} s"

    @property
    def omission(self) -> list[str]:
        """A line of what was left out, if anything was."""
        return [f"left out: {', '.join(show_all(self.left_out))}"] if self.left_out else []


def said_by(files: Sequence[MovedFile]) -> list[str]:
    """Return a line for each source of digests to which files were held."""
    sources = dict.fromkeys(source for file in files for source in file.verified_by)
    numbers = {source: sum(source in file.verified_by for file in files) for source in sources}
    return [f"{file_count(number)} as {source} says, byte for byte" for source, number in numbers.items()]
