"""What a run will score and compute, before it begins: from counts of parameters and tokens alone."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wmtp.algorithms.base import Algorithm, Score, ValueAlgorithm
from wmtp.untrusted import plain, show

if TYPE_CHECKING:
    from wmtp.run_plan.data import DataEstimate
    from wmtp.run_plan.trained import TrainedParameters
    from wmtp.settings.recipe import Recipe

_PREFIXES = ("", "k", "M", "G", "T", "P", "E", "Z")


@dataclass(frozen=True)
class RunCost:
    """What a run computes. FLOPs are 2 for each parameter and token of a forward pass, 6 with its backward pass.

    Attributes:
        scoring: FLOPs of scores that are computed before training, once; none of them where they are kept already.
        value_steps: Optimizer steps in which only value heads are trained; 0 without them.
        value_stage: FLOPs of those.
        num_value: Parameters of value heads, in all folds.
        folds: Of documents, each with value heads of its own; 0 without value heads.
        steps: Optimizer steps of training itself.
        rows_in_step: Rows in an optimizer step, on one device.
        tokens: Tokens that are trained on, each as often as it is read.
        beside: FLOPs of models that run while training, to score each batch.
        training: FLOPs of training, those among them.
        trains_all: Whether every parameter is trained, in every step.
    """

    scoring: int
    value_steps: int
    value_stage: int
    num_value: int
    folds: int
    steps: int
    rows_in_step: int
    tokens: int
    beside: int
    training: int
    trains_all: bool = True

    def lines(self) -> Iterator[str]:
        """Yield the cost in lines for a person."""
        yield f"compute, on one device: about {flops(self.scoring + self.value_stage + self.training)}"
        if self.scoring:
            yield f"  scoring: {flops(self.scoring)} (2 x parameters x tokens), once"
        if self.value_steps:
            steps = f"{self.value_steps} optimizer steps of {self.rows_in_step} rows before training"
            yield f"  value heads alone: {flops(self.value_stage)}, {steps}"
        if self.folds:
            of_what = f"{self.num_value:,} parameters" if self.num_value else "as wide as the base model's states"
            yield f"  value heads: {of_what}; documents in {self.folds} fold{'s' * (self.folds > 1)}"
        steps = f"{self.steps} optimizer steps of {self.rows_in_step} rows, {self.tokens:,} tokens"
        beside = ", and 2 x of models beside it" if self.beside else ""
        factor = "6" if self.trains_all else "6, and less where nothing is trained,"
        yield f"  training: {flops(self.training)} ({factor} x parameters x tokens{beside}), {steps}"


def run_cost(
    recipe: Recipe,
    algorithm: Algorithm,
    num_parameters: Mapping[str, int],
    trained: TrainedParameters,
    data: DataEstimate,
    *,
    num_value: int = 0,
) -> RunCost:
    """Return about what a run computes.

    Args:
        recipe: Length and batch size of the run.
        algorithm: What it scores, and whether it has value heads.
        num_parameters: Of the model in each role.
        trained: Which of the base model's are trained.
        data: How much there is to train on.
        num_value: Parameters of value heads.
    """
    base = num_parameters["base"]
    steps, rows_in_step = optimizer_steps(recipe, data, 1)
    step_tokens = rows_in_step * data.row_tokens
    value_steps = algorithm.fit_steps if isinstance(algorithm, ValueAlgorithm) else 0
    beside = 2 * steps * step_tokens * sum(num_parameters[role] for role in online_roles(algorithm))
    at_first = min(trained.heads_warmup_steps, steps)
    own = trained.flops(at_first * step_tokens, heads_alone=True) + trained.flops((steps - at_first) * step_tokens)
    before = [score.role for score in algorithm.scores if score.role is not None and not score.online]
    return RunCost(
        scoring=2 * data.tokens * sum(num_parameters[role] for role in before),
        value_steps=value_steps,
        value_stage=value_steps * step_tokens * (2 * base + 6 * num_value),
        num_value=num_value,
        folds=algorithm.folds if isinstance(algorithm, ValueAlgorithm) else 0,
        steps=steps,
        rows_in_step=rows_in_step,
        tokens=steps * step_tokens,
        beside=beside,
        training=own + 6 * steps * step_tokens * num_value + beside,
        trains_all=trained.what == "all" and not at_first,
    )


def optimizer_steps(recipe: Recipe, data: DataEstimate, world_size: int) -> tuple[int, int]:
    """Return how many optimizer steps a run has, and how many rows each, over all of so many processes."""
    train = recipe.train
    batch = world_size * train.per_device_train_batch_size * train.gradient_accumulation_steps
    steps = train.max_steps or math.ceil((train.num_train_epochs or 0) * math.ceil(data.rows / batch))
    return steps, min(batch, data.rows)


def num_value_parameters(algorithm: ValueAlgorithm, dim: int) -> int:
    """Return how many parameters the value heads of an algorithm have, on a trunk whose states are `dim` wide."""
    # A norm, a hidden layer as wide as the trunk, an output; of a token two norms and a layer twice as wide of both.
    of_states = dim * dim + 4 * dim + 1
    of_tokens = 4 * dim * dim + 8 * dim + 1
    return algorithm.folds * (of_states + algorithm.values_tokens * of_tokens)


def online_roles(algorithm: Algorithm) -> set[str]:
    """Return the roles whose models stay in memory while training, to score each batch as it comes."""
    return {score.role for score in algorithm.scores if score.online and score.role is not None}


def score_facts(
    algorithm: Algorithm, uris: Mapping[str, str], data: DataEstimate, kept_in: Path
) -> list[dict[str, Any]]:
    """Return what will be scored: by which model, on about how many tokens, and where it is kept.

    Args:
        algorithm: Its scores are listed.
        uris: Address of the model in each role.
        data: How much there is to score.
        kept_in: The directory of scores that are computed once.
    """
    return [
        {
            "name": score.name,
            "what": score.what,
            "role": score.role,
            "uri": uris[score.role] if score.role is not None else None,
            "column": score.column,
            "label": score.label,
            "online": score.online,
            "data": "data.train",
            "tokens": data.tokens if score.what != "column" else 0,
            "kept_in": str(kept_in) if _is_offline(score) else None,
        }
        for score in algorithm.scores
    ]


def score_line(facts: Mapping[str, Any]) -> str:
    """Return what will be scored in a line for a person."""
    if facts["what"] == "column":
        return f"{facts['name']}: the number {show(facts['column'])} of each document in {facts['data']}"
    what = "-log P of each token" if facts["what"] == "nll" else "the reward of each document"
    scored = f"{facts['name']}: {what} by {facts['role']} ({plain(facts['uri'])})"
    if facts["online"]:
        return f"{scored}, of each batch while training"
    about = f"about {facts['tokens']:,} tokens of {facts['data']}"
    return f"{scored}, {about}, before training; kept in {plain(facts['kept_in'])}, reused when there"


def flops(count: int) -> str:
    """Return a number of floating-point operations as people say it: `3.1 PFLOP`."""
    power = min(max(0, (len(str(count)) - 1) // 3), len(_PREFIXES) - 1)
    return f"{count / 1000**power:.1f} {_PREFIXES[power]}FLOP"


def _is_offline(score: Score) -> bool:
    return score.what != "column" and not score.online
