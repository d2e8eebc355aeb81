"""The parameters of a model as its headers and mapping give them, and how they lie in shards."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from wmtp.checkpoint.contents import Checkpoint
from wmtp.load_plan.conversion.nodes import Made
from wmtp.load_plan.matching import sources_of
from wmtp.run_plan.trained import trained_names

if TYPE_CHECKING:
    from wmtp.settings.recipe import Recipe

# What is gathered and let go by itself, as `models.units` says it of modules: layers, that is members of the outermost
# list, and of heads their layers and blocks.
_UNIT = re.compile(r"heads\.\d{1,4}\.(?:layer|mtp_block|blocks\.\d{1,4})(?=\.)|(?!heads\.)(?:.*?\.)?\d{1,6}(?=\.)")


@dataclass(frozen=True)
class Parameter:
    """One parameter of a model.

    Attributes:
        name: In the model.
        shape: Its dimensions.
        stored_bytes: Of the tensors that it is read from.
        is_trained: Whether it has a gradient.
        is_made: Whether it is made of several tensors, so that every process reads all of them.
        unit: What is gathered together with it, by name; empty: what is there while the whole model runs.
    """

    name: str
    shape: tuple[int, ...]
    stored_bytes: int
    is_trained: bool
    is_made: bool

    @property
    def unit(self) -> str:
        """What is gathered together with it, by name; empty: what is there while the whole model runs."""
        found = _UNIT.match(self.name)
        return found[0] if found else ""

    @property
    def count(self) -> int:
        """Its values."""
        return math.prod(self.shape)

    def share(self, world_size: int, rank: int = 0) -> int:
        """Return how many values a process keeps: FSDP2 cuts along the first dimension, the last ones have fewer."""
        rows = self.shape[0] if self.shape else 1
        chunk = math.ceil(rows / world_size)
        return max(0, min(chunk, rows - rank * chunk)) * (self.count // max(1, rows))

    def read_bytes(self, world_size: int, rank: int = 0) -> int:
        """Return how many bytes of the files a process reads for its share."""
        return self.stored_bytes if self.is_made else self.share(world_size, rank) * self.stored_bytes // self.count


@dataclass(frozen=True)
class ModelShapes:
    """All parameters of a model."""

    parameters: Sequence[Parameter]

    @classmethod
    def of(cls, recipe: Recipe, base: Checkpoint) -> ModelShapes:
        """Return those of the model that a recipe trains."""
        trained = trained_names(recipe, base)
        mapping = base.metadata.loading_strategy.state_dict_mapping
        found = sources_of(mapping, base.tensors, where=base.where)
        return cls(
            [
                Parameter(name, source.shape, source.num_bytes, name in trained, isinstance(source, Made))
                for name, (source, _) in found.items()
                if math.prod(source.shape)
            ]
        )

    @property
    def count(self) -> int:
        """Values in all."""
        return sum(each.count for each in self.parameters)

    @property
    def trained_count(self) -> int:
        """Values that are trained."""
        return sum(each.count for each in self.trained())

    def trained(self) -> Iterator[Parameter]:
        """Yield the parameters that have gradients."""
        return (each for each in self.parameters if each.is_trained)

    def units(self) -> dict[str, list[Parameter]]:
        """Return the parameters of each unit by its name; under the empty one those of the model as a whole."""
        found: dict[str, list[Parameter]] = {"": []}
        for each in self.parameters:
            found.setdefault(each.unit, []).append(each)
        return found
