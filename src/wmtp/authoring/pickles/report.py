"""What a conversion made, and under which limits."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from wmtp.untrusted import first_few, plain, show


@dataclass(frozen=True)
class ConversionReport:
    """What `convert` made, and how.

    Attributes:
        path: The new directory.
        sources: The pickles that were opened.
        weights: The safetensors files, with their index.
        num_tensors: Tensors written.
        num_bytes: Of tensor data.
        unwrapped: The entry of the pickles that held the tensors; None when they stood at the top.
        dropped: Entries that are no tensors, or stood beside the unwrapped one.
        same: Names that were left out, each with the name under which its tensor is stored.
        copied: Files that went along unchanged.
        left_out: Files of the source that did not.
        with_metadata: metadata.json was carried over.
        num_heads: Heads, counting the next-token head, of a release whose params.json says it: config.json and
            metadata.json were made from that. None: it was not so.
        network_cut: The process that opened the pickles had no network.
        writes_confined: It could write its own files only, and run no program.
        memory_limited: Its memory was limited.
        memory_limit_bytes: What it might take beyond Python and torch.
        time_limit_seconds: Of processor time.
    """

    path: str
    sources: tuple[str, ...]
    weights: tuple[str, ...]
    num_tensors: int
    num_bytes: int
    unwrapped: str | None
    dropped: tuple[str, ...]
    same: dict[str, str]
    copied: tuple[str, ...]
    left_out: tuple[str, ...]
    with_metadata: bool
    num_heads: int | None
    network_cut: bool
    writes_confined: bool
    memory_limited: bool
    memory_limit_bytes: int
    time_limit_seconds: int

    @property
    def next_step(self) -> str:
        """What to do with the new directory."""
        return f"wmtp {'validate' if self.with_metadata or self.num_heads else 'init'} {self.path}"

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain JSON values."""
        return asdict(self) | {"next_step": self.next_step}

    def summary(self) -> list[str]:
        """Return the report in a few lines for a person."""
        opened = [f"{self.memory_limit_bytes:,} bytes of memory" if self.memory_limited else "memory not limited"]
        opened += [f"{self.time_limit_seconds:,} seconds"]
        opened += ["no network" if self.network_cut else "network not cut off"]
        opened += ["writing confined" if self.writes_confined else "writing not confined"]
        return [
            f"{self.path}: {self.num_tensors:,} tensors, {self.num_bytes:,} bytes, in {', '.join(self.weights)}",
            f"opened in a process of its own ({', '.join(opened)}): {_listed(self.sources)}",
            *([f"the tensors stood under {show(self.unwrapped)}"] if self.unwrapped is not None else []),
            *first_few([f"stored once: {plain(name)} is {plain(first)}" for name, first in self.same.items()]),
            *first_few([f"dropped, as no tensor of the model: {plain(entry)}" for entry in self.dropped]),
            f"copied: {_listed(self.copied) or 'nothing'}",
            *([f"left out: {_listed(self.left_out)}"] if self.left_out else []),
            self._declared(),
            f"next: {self.next_step}",
        ]

    def _declared(self) -> str:
        if self.num_heads is not None:
            return f"config.json and metadata.json were made from params.json: {self.num_heads} heads"
        return "metadata.json was carried over" if self.with_metadata else "there was no metadata.json to carry over"


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(first_few([plain(name) for name in names]))
