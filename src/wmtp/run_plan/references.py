"""What is known of the reference models of a run before any is loaded: what `wmtp score` has measured."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from wmtp.algorithms.base import Algorithm
from wmtp.checkpoint.contents import Checkpoint
from wmtp.comparison.references import ReferenceLosses, losses_file, read_losses

if TYPE_CHECKING:
    from wmtp.settings.quantize import Quantize
    from wmtp.settings.recipe import Data


def known_losses(
    algorithm: Algorithm, opened: Mapping[str, Checkpoint], data: Data, kept_in: Path, quantize: Quantize
) -> dict[str, ReferenceLosses | None]:
    """Return the losses of each reference beside those of the base model, by the name of its score.

    Args:
        algorithm: What it scores.
        opened: The model in each role.
        data: The recipe's section.
        kept_in: The directory of scores.
        quantize: Into how many bits the weights of references are put.

    Returns:
        None for a reference that was not measured, or not on this data.
    """
    roles = {score.name: score.role for score in algorithm.scores if score.what == "nll" and score.role is not None}
    base = opened["base"]
    return {
        name: read_losses(losses_file(kept_in, base, opened[role], data, bits=quantize.of(role)))
        for name, role in roles.items()
    }


def reference_notes(known: Mapping[str, ReferenceLosses | None]) -> Iterator[str]:
    """Yield what is known of each reference in lines for a person."""
    for name, losses in known.items():
        if losses is None:
            yield f"{name}: whether the reference is better than the base model is not measured yet: 'wmtp score' tells"
        else:
            yield from losses.lines()
