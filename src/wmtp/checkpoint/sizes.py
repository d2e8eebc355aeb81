"""How large config.json may say that a model is: no larger than the tensors that would fill it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from wmtp.checkpoint.tensors import TensorInfo
from wmtp.errors import PlanError
from wmtp.untrusted import first_few, plain, show

# Keys that say how many parts a model has, or how wide one is. Lengths of texts are not among them: rotary positions
# go beyond every dimension of the weights.
SIZE = re.compile(
    r".*(?:layers?|blocks|heads|experts|vocab_size|hidden_size|intermediate_size|_dim|_labels|_tokens)|d_model|d_ff|n_embd|n_inner"
)
# Below it nothing is refused here: it costs little to build, and the plan then names what does not fit.
_HARMLESS_SIZE = 1 << 16


def largest_size(tensors: Sequence[TensorInfo]) -> int:
    """Return how large these tensors let any one dimension be, or any number of parts."""
    return max(_HARMLESS_SIZE, len(tensors), _widest(tensors))


def check_sizes(config: dict[str, Any], tensors: Sequence[TensorInfo], *, where: str) -> None:
    """Refuse a config.json that asks for more than the headers can fill, before anything is built.

    Raises:
        PlanError: Naming each key, what it asks for, and what the headers hold.
    """
    bound = largest_size(tensors)
    faults = [f"{plain(key)} is {show(size)}" for key, size in _declared_sizes(config) if size > bound]
    if faults:
        raise PlanError(
            f"{where}/config.json: {', '.join(first_few(faults))}; the headers hold {len(tensors):,} tensors, and no"
            f" dimension of them is above {_widest(tensors):,}",
            hint="compare config.json with the one that the weights were saved with",
        )


def _declared_sizes(document: dict[str, Any], path: str = "") -> Iterator[tuple[str, int]]:
    for key, value in document.items():
        if type(value) is int and SIZE.fullmatch(key):
            yield path + key, value
        elif isinstance(value, dict):
            yield from _declared_sizes(value, f"{path}{key}.")


def _widest(tensors: Sequence[TensorInfo]) -> int:
    return max((max(tensor.shape, default=1) for tensor in tensors), default=1)
