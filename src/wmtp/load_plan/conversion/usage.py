"""How often each stored tensor, and each part of one that is cut, is used: it must be once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Self

from wmtp.checkpoint.tensors import TensorInfo
from wmtp.load_plan.conversion.nodes import Node, Shape, Taken, parts_of, stored_in
from wmtp.untrusted import show

_Cut = tuple[int, Shape, Node]  # along which dimension, into which sizes, of what


@dataclass
class Usage:
    """Counts of what is used.

    Attributes:
        tensors: How often each stored tensor is used, by its name after renaming.
        cuts: For everything that is cut, how often each of its pieces is used.
    """

    tensors: Counter[str] = field(default_factory=Counter)
    cuts: dict[_Cut, Counter[int]] = field(default_factory=dict)

    @classmethod
    def of(cls, nodes: Mapping[str, Node]) -> Self:
        """Count what parameters are made of."""
        usage = cls()
        waiting = list(nodes.values())
        while waiting:
            node = waiting.pop()
            if isinstance(node, TensorInfo):
                usage.tensors[node.name] += 1
            elif isinstance(node, Taken):
                cut = (node.dim, node.sizes, node.of)
                if cut not in usage.cuts:
                    waiting.append(node.of)
                usage.cuts.setdefault(cut, Counter())[node.take] += 1
            else:
                waiting += parts_of(node)
        return usage

    def faults(self) -> Iterator[str]:
        """Yield what is used more than once, and parts that are left out."""
        for name, count in self.tensors.items():
            if count > 1:
                yield f"{show(name)} is used {count} times"
        for (_, sizes, of), takes in self.cuts.items():
            name = show(next(stored_in(of)).name)
            for take in range(len(sizes)):
                if takes[take] > 1:
                    yield f"piece {take} of {name} is used {takes[take]} times"
                elif not takes[take]:
                    yield f"piece {take} of {name} is left out: no rule takes it"
