"""recipe.yaml: what to train, on which data, with which algorithm.

Training keys carry the names and meanings of transformers' `TrainingArguments`. The section of an algorithm (such as
`rho1:`) is described by the algorithm itself, found by name in the registry.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, ConfigDict, Field, SerializeAsAny, create_model, model_validator

from wmtp.errors import SettingsError
from wmtp.faults import Fault, FieldFaults, StrictModel
from wmtp.registry import algorithms
from wmtp.settings.config import Config, matching
from wmtp.settings.data import Data, DataSource, TrainingData, ValidationData
from wmtp.settings.heads import MTP
from wmtp.settings.train import TrainSection
from wmtp.settings.trainable import check_trunk
from wmtp.settings.yaml_file import Document, Override, read_document
from wmtp.untrusted import did_you_mean, show

__all__ = [
    "MTP",
    "Data",
    "DataSource",
    "Loss",
    "Recipe",
    "RecipeFields",
    "Run",
    "TrainSection",
    "TrainingData",
    "ValidationData",
    "load_recipe",
    "recipe_json_schema",
    "recipe_of",
    "split_overrides",
]


class Run(StrictModel):
    """What a run is called and how it is repeated."""

    name: Annotated[str, matching(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", "use letters, digits, '.', '_' and '-'")] = (
        Field(description="Also the name of its directory in paths.output_dir.")
    )
    seed: int = Field(42, ge=0, lt=2**32, description="Seeds data order and dropout.")
    export_next_token: bool = Field(
        False, description="Also write the final model as a plain next-token model for transformers."
    )


def _head_prior(value: Any) -> Any:
    numbers: list[Any] = value if isinstance(value, list) else []
    if isinstance(value, dict) and set(value) == {"decay"}:
        numbers = [value["decay"]]
    are_numbers = all(isinstance(n, int | float) and not isinstance(n, bool) and 0 <= n < 1e6 for n in numbers)
    if value == "uniform" or (are_numbers and sum(numbers) > 0):
        return value
    hint = "use uniform, {decay: 0.8}, or a list of one weight for each head"
    raise FieldFaults(Fault((), f"is {show(value)}", hint))


HeadPrior = Annotated[
    Literal["uniform"] | dict[str, float] | list[float],
    BeforeValidator(
        _head_prior, json_schema_input_type=Literal["uniform"] | dict[Literal["decay"], float] | list[float]
    ),
]


class Loss(StrictModel):
    """How the losses of heads and tokens become one."""

    head_prior: HeadPrior = Field(
        "uniform", description="uniform, {decay: B} for B ** (k - 1), or one weight for each head; times the weights."
    )
    backend: Literal["auto", "torch", "eager"] = Field(
        "auto", description="torch: no logits in memory. eager: plain. auto: torch where a self-test agrees with eager."
    )


class RecipeFields(StrictModel):
    """The sections that every recipe has, whatever its algorithm."""

    model_config = ConfigDict(title="wmtp recipe.yaml")

    run: Run
    data: Data
    mtp: MTP = Field(default_factory=MTP)
    train: TrainSection
    loss: Loss = Field(default_factory=Loss)

    @model_validator(mode="after")
    def _one_prior_for_each_head(self) -> Self:
        prior, horizon = self.loss.head_prior, self.mtp.horizon
        if isinstance(prior, list) and horizon not in (None, len(prior)):
            problem = f"has {len(prior)} weights, and mtp.horizon is {horizon}"
            raise FieldFaults(Fault(("loss", "head_prior"), problem, "give one weight for each head"))
        return self

    @model_validator(mode="after")
    def _trunk_is_trained_as_said(self) -> Self:
        check_trunk(self.train, self.mtp.trunk)
        return self


class Recipe(RecipeFields):
    """A parsed recipe.yaml.

    Attributes:
        algorithm_section: The section of `train.algo`, as that algorithm describes it; None when it has none.
    """

    algorithm_section: SerializeAsAny[StrictModel] | None = None

    def to_document(self) -> dict[str, Any]:
        """Return the recipe as recipe.yaml would say it, with every default written out; `load_recipe` reads it."""
        document = self.model_dump(mode="json", exclude_none=True, exclude={"algorithm_section"})
        if self.algorithm_section is not None:
            name = algorithms.get(self.train.algo).section_name
            document[name] = self.algorithm_section.model_dump(mode="json", exclude_none=True)
        return document


def load_recipe(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe.yaml.

    Args:
        path: The file. Data files in it are seen from its directory.
        overrides: `a.b=value` texts that take the place of what the file says, the value in YAML.

    Raises:
        SettingsError: With every fault of file and overrides at once, each with its line.
    """
    return _parsed(read_document(path, overrides))


def recipe_of(document: Mapping[str, Any], *, where: Path) -> Recipe:
    """Return the recipe that `Recipe.to_document` wrote into a file; raises what `load_recipe` does."""
    return _parsed(Document(where, dict(document)))


def _parsed(document: Document) -> Recipe:
    train = document.value.get("train")
    algorithm = train.get("algo") if isinstance(train, dict) else None
    if algorithm not in algorithms.names():
        # It will be refused; its sections are checked all the same, so that every fault is named at once.
        document.validate(_with_sections(_all_sections()))
    sections = _sections(str(algorithm))
    for name in sections:
        document.value.setdefault(name, {})
    parsed = document.validate(_with_sections(sections), amend=partial(_other_section, str(algorithm)))
    fields: dict[str, Any] = {name: getattr(parsed, name) for name in RecipeFields.model_fields}
    return Recipe(**fields, algorithm_section=next((getattr(parsed, name) for name in sections), None))


def recipe_json_schema() -> dict[str, Any]:
    """Return the JSON Schema of recipe.yaml with the sections of all registered algorithms."""
    model = _with_sections(_all_sections())
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **model.model_json_schema()}


def split_overrides(overrides: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the overrides that belong to config.yaml and those that belong to recipe.yaml, by their first key.

    Raises:
        SettingsError: If a first key belongs to neither file; lists the known ones.
    """
    of_config, of_recipe = list(Config.model_fields), [*RecipeFields.model_fields, *_all_sections()]
    for_config: list[str] = []
    for_recipe: list[str] = []
    for text in overrides:
        override = Override.parse(text)
        first = override.keys[0]
        if first not in (known := [*of_config, *of_recipe]):
            raise SettingsError(
                f"{override.origin.text}: {show(first)} is a section of neither config.yaml nor recipe.yaml",
                hint=f"begin with one of {', '.join(known)}{did_you_mean(first, known)}",
            )
        (for_config if first in of_config else for_recipe).append(text)
    return for_config, for_recipe


def _sections(algorithm: str) -> dict[str, type[StrictModel]]:
    component = algorithms.get(algorithm)
    return {component.section_name: component.section} if component.section else {}


def _all_sections() -> dict[str, type[StrictModel]]:
    return {name: section for algorithm in algorithms.names() for name, section in _sections(algorithm).items()}


def _with_sections(sections: dict[str, type[StrictModel]]) -> type[RecipeFields]:
    fields: dict[str, Any] = {name: (section, None) for name, section in sections.items()}
    return create_model("Recipe", __base__=RecipeFields, **fields)


def _other_section(algorithm: str, fault: Fault) -> Fault:
    """Say of an unknown section that it is another algorithm's, where it is."""
    if len(fault.path) != 1 or fault.path[0] in _sections(algorithm):
        return fault
    owner = next((name for name in algorithms.names() if fault.path[0] in _sections(name)), None)
    if owner is None:
        return fault
    problem = f"is the section of {owner}, and train.algo is {show(algorithm)}"
    return Fault(fault.path, problem, f"remove it, or set train.algo: {owner}")
