"""From config and recipe to the models that fit, their loader, and the algorithm.

Roles come from the algorithm, candidates from the config, and which candidate fits from metadata.json alone: no weight
is opened to decide.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from wmtp.errors import IncompatibleModelError, WmtpError
from wmtp.html_table import html_lines
from wmtp.metadata.file import load_metadata
from wmtp.metadata.fitness import Need, misfits
from wmtp.metadata.schema import ModelMetadata
from wmtp.registry import algorithms, loader_registry
from wmtp.settings.config import Config
from wmtp.settings.recipe import Recipe

if TYPE_CHECKING:
    from wmtp.algorithms.base import Algorithm, Role

DEFAULT_LOADER = "standardized-model-loader"


@dataclass(frozen=True)
class Candidate:
    """A model that fits its role.

    Attributes:
        uri: Its address.
        metadata: What it declares.
    """

    uri: str
    metadata: ModelMetadata

    def __str__(self) -> str:
        heads = f", {self.metadata.num_heads} heads" if (self.metadata.num_heads or 1) > 1 else ""
        return f"{self.uri} ({self.metadata.wmtp_type}, {self.metadata.base_architecture}{heads})"

    def to_dict(self) -> dict[str, Any]:
        """Return its address and the facts that people pick models by."""
        facts = self.metadata.model_dump(include={"wmtp_type", "base_architecture"})
        return {"uri": self.uri, **facts, "num_heads": self.metadata.num_heads}


@dataclass(frozen=True)
class Rejection:
    """A model that does not fit a role.

    Attributes:
        role: The role it was offered for.
        uri: Its address.
        reason: What it declares, and what is needed.
        fix: The one edit or path that would change that.
    """

    role: str
    uri: str
    reason: str
    fix: str

    def __str__(self) -> str:
        return f"{self.role}: {self.uri}: {self.reason}; {self.fix}"


@dataclass(frozen=True)
class Resolution:
    """Which model serves in which role, and why the others do not.

    Attributes:
        algorithm: The algorithm's name.
        chosen: The first candidate that fits, by role.
        rejected: Every candidate before it.
    """

    algorithm: str
    chosen: dict[str, Candidate]
    rejected: tuple[Rejection, ...] = ()

    def describe(self) -> list[str]:
        """Return one line for each chosen model and each rejected one, for a person."""
        chosen = [f"{role}: {candidate}" for role, candidate in self.chosen.items()]
        return [*chosen, *(f"not {rejection}" for rejection in self.rejected)]

    def _repr_html_(self) -> str:
        return html_lines(f"Models for {self.algorithm}", self.describe())

    def to_dict(self) -> dict[str, Any]:
        """Return the same facts for a program."""
        return {
            "algorithm": self.algorithm,
            "chosen": {role: candidate.to_dict() for role, candidate in self.chosen.items()},
            "rejected": [vars(rejection) for rejection in self.rejected],
        }


def resolve_models(config: Config, recipe: Recipe) -> Resolution:
    """Return, for each role of the recipe's algorithm, the first candidate that fits.

    Reads the metadata.json of candidates and nothing else of them.

    Raises:
        IncompatibleModelError: If a role has no candidate that fits; names every candidate of such roles and why not.
        UnknownNameError: If the recipe's algorithm is not registered.
    """
    name = recipe.train.algo
    chosen: dict[str, Candidate] = {}
    rejected: list[Rejection] = []
    roles = ComponentFactory.create_algorithm(recipe).roles
    for role in roles:
        candidates: list[str] = getattr(config.paths.models, role.name)
        for uri in candidates:
            found = _examine(role, uri, recipe, chosen.get("base"))
            if isinstance(found, Candidate):
                chosen[role.name] = found
                break
            rejected.append(found)
    if failed := [role for role in roles if role.name not in chosen]:
        raise _no_model(name, failed, rejected)
    return Resolution(name, chosen, tuple(rejected))


def create_model_loader(config: Config, recipe: Recipe | None = None) -> Any:
    """Return the loader for the models of a config.

    Args:
        config: Where models are.
        recipe: When given, models are resolved first, and `load_model()` without a URI loads the base model picked.

    Raises:
        IncompatibleModelError: If no model fits the recipe.
    """
    if recipe is not None:
        picked = {role: [found.uri] for role, found in resolve_models(config, recipe).chosen.items()}
        models = config.paths.models.model_copy(update=picked)
        config = config.model_copy(update={"paths": config.paths.model_copy(update={"models": models})})
    return loader_registry.create(DEFAULT_LOADER, config)


class ComponentFactory:
    """Builds the parts of a run from its settings."""

    create_model_loader = staticmethod(create_model_loader)

    @staticmethod
    def create_algorithm(recipe: Recipe) -> Algorithm:
        """Return the recipe's algorithm, given its section of the recipe."""
        algorithm: Algorithm = algorithms.create(recipe.train.algo, recipe.algorithm_section)
        return algorithm


def _examine(role: Role, uri: str, recipe: Recipe, base: Candidate | None) -> Candidate | Rejection:
    try:
        candidate = Candidate(uri, load_metadata(uri))
    except WmtpError as error:
        reason = "; ".join([error.problem, *error.faults[:1]]).removeprefix(uri).lstrip("/: ")
        return Rejection(role.name, uri, reason, error.hint)
    need = Need(role.name, role.wmtp_type, recipe.train.algo, recipe.mtp.horizon)
    if base is not None:
        need = replace(need, base_uri=base.uri, base=base.metadata)
    misfit = next(misfits(uri, candidate.metadata, need), None)
    return Rejection(role.name, uri, *misfit) if misfit else candidate


def _no_model(algorithm: str, failed: list[Role], rejected: list[Rejection]) -> IncompatibleModelError:
    lines: list[str] = []
    for role in failed:
        reasons = [str(rejection) for rejection in rejected if rejection.role == role.name]
        lines += reasons or [
            f"{role.name}: no candidate is configured; name a {role.wmtp_type} under paths.models.{role.name}"
        ]
    return IncompatibleModelError(
        f"No compatible model found for {algorithm}, in the role of {', '.join(role.name for role in failed)}",
        hint="make one of the changes named above; 'wmtp ls DIRECTORY' shows which models are there",
        faults=lines,
    )
