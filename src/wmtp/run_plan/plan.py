"""What a run would use, before anything of it is loaded: models, data, scores, compute, memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wmtp.checkpoint.contents import Checkpoint
from wmtp.factory import ComponentFactory, Resolution, resolve_models
from wmtp.html_table import html_lines
from wmtp.run_plan.cost import RunCost, run_cost, score_facts, score_line
from wmtp.run_plan.data import DataEstimate, estimate_data
from wmtp.run_plan.memory import memory_of, num_parameters, value_parameters, width_of
from wmtp.run_plan.models import open_models, quantised_notes, require_apart
from wmtp.run_plan.needs import open_questions, require_needs
from wmtp.run_plan.references import known_losses, reference_notes
from wmtp.run_plan.scale import Counted, Processes, ScalePlan, scale_plan
from wmtp.run_plan.tokens import TokenCounter
from wmtp.run_plan.trained import TrainedParameters, trained_parameters
from wmtp.untrusted import plain
from wmtp.wording import size

if TYPE_CHECKING:
    from wmtp.comparison.references import ReferenceLosses
    from wmtp.settings.config import Config
    from wmtp.settings.recipe import Recipe


@dataclass(frozen=True)
class RunPlan:
    """What a run would use.

    Attributes:
        resolution: Which model serves in which role, and why the others do not.
        models: For each role: address, parameters, bytes stored, bytes to fetch.
        data: About how much there is to train on.
        scores: What will be scored, by which model, on how much, and where that is kept.
        references: Losses of each reference beside those of the base model, by score; None: not measured.
        cost: About what is computed.
        trained: How many parameters are trained, and of which part.
        memory: Bytes while training, by what they hold; activations are not counted.
        notes: What else should be known before it starts.
        scale: What each of several processes needs; None: not asked for.
    """

    resolution: Resolution
    models: dict[str, dict[str, Any]]
    data: DataEstimate
    scores: list[dict[str, Any]]
    references: dict[str, ReferenceLosses | None]
    cost: RunCost
    trained: TrainedParameters
    memory: dict[str, int]
    notes: tuple[str, ...]
    scale: ScalePlan | None = None

    def _repr_html_(self) -> str:
        return html_lines("Plan of a run", self.summary())

    def to_dict(self) -> dict[str, Any]:
        """Return the plan as plain JSON values."""
        facts = {"models": self.models, "data": self.data.to_dict(), "scores": self.scores}
        counted = {"cost": asdict(self.cost), "trained": self.trained.to_dict(), "memory": self.memory}
        facts["references"] = [losses.to_dict() for losses in self.references.values() if losses is not None]
        scale = {} if self.scale is None else {"scale": self.scale.to_dict()}
        return {**self.resolution.to_dict(), **facts, **counted, **scale, "notes": self.notes}

    def summary(self) -> Iterator[str]:
        """Yield the plan in lines for a person."""
        yield self.resolution.algorithm
        yield from (f"  {plain(line)}" for line in self.resolution.describe())
        yield "to load"
        for role, model in self.models.items():
            parameters, stored = f"{model['num_parameters']:,} parameters", size(model["stored_bytes"])
            yield f"  {role}: {parameters}, {stored} stored, {size(model['bytes_to_fetch'])} to fetch"
        yield from self.trained.lines()
        yield self.data.line()
        if self.scores:
            yield "to score"
            yield from (f"  {score_line(score)}" for score in self.scores)
        yield from reference_notes(self.references)
        yield from self.cost.lines()
        yield from self.scale.lines() if self.scale else self._memory_lines()
        yield from self.notes

    def _memory_lines(self) -> Iterator[str]:
        yield f"memory while training, without activations: {size(sum(self.memory.values()))}"
        yield from (f"  {what.replace('_', ' ')}: {size(count)}" for what, count in self.memory.items() if count)


def plan_run(
    config: Config,
    recipe: Recipe,
    environment: Mapping[str, str] | None = None,
    *,
    trains_here: bool = False,
    processes: Processes | None = None,
) -> RunPlan:
    """Return what a run would use, once what it needs is there.

    Reads metadata, config.json and headers of the models that were picked, lengths and beginnings of data files.

    Args:
        config: Where models are, and what to compute on.
        recipe: What to train.
        environment: Variables that say whether this is one of several processes; None: `os.environ`.
        trains_here: Whether the devices of this machine are asked, as it will train; imports torch.
        processes: How many there are to be, to plan what each of them needs; None: that is left out.

    Raises:
        TrainingError: If a need of the run is not met, see `run_plan.needs`; if rows are packed for a model that is
            known to let documents see each other; or if the model cannot be trained in the part that the recipe names.
        WmtpError: If no model fits, one that was picked is malformed, or the data lacks a file or a key.
    """
    require_needs(config, recipe, environment, trains_here=trains_here)
    resolution = resolve_models(config, recipe)
    algorithm = ComponentFactory.create_algorithm(recipe)
    opened = open_models(config, resolution)
    columns = [score.column for score in algorithm.scores if score.column is not None]
    data = estimate_data(recipe.data, columns, TokenCounter.of(opened["base"]), config.paths.cache_dir)
    require_apart(recipe, algorithm, opened)
    trained = trained_parameters(recipe, opened["base"])
    counts = {role: num_parameters(checkpoint) for role, checkpoint in opened.items()}
    num_value = value_parameters(algorithm, opened["base"])
    uris = {role: checkpoint.where for role, checkpoint in opened.items()}
    kept_in = Path(config.paths.output_dir) / "scores"
    notes = [f"data.train: {data.left_out}"] if data.left_out else []
    notes += quantised_notes(config.devices.quantize, opened)
    notes += [] if trains_here else open_questions(config.devices)
    cost = run_cost(recipe, algorithm, counts, trained, data, num_value=num_value)
    if recipe.train.sharding != "none" and processes is None:
        notes.append("memory is that of one device; 'wmtp plan --world-size N' shows what each of N processes has")
    width = width_of(config, opened["base"], notes)
    memory = memory_of(config, recipe, algorithm, opened, trained, width)
    others = [checkpoint for role, checkpoint in opened.items() if role != "base"]
    found = Counted(width, trained, data, memory, others)
    return RunPlan(
        resolution,
        {role: _model_facts(checkpoint) for role, checkpoint in opened.items()},
        data,
        score_facts(algorithm, uris, data, kept_in),
        known_losses(algorithm, opened, recipe.data, kept_in, config.devices.quantize),
        cost,
        trained,
        memory,
        tuple(notes),
        scale_plan(recipe, opened["base"], found, processes) if processes else None,
    )


def _model_facts(checkpoint: Checkpoint) -> dict[str, Any]:
    return {
        "uri": checkpoint.where,
        "num_parameters": num_parameters(checkpoint),
        "stored_bytes": sum(tensor.num_bytes for tensor in checkpoint.tensors),
        "bytes_to_fetch": checkpoint.store.bytes_to_fetch({tensor.file for tensor in checkpoint.tensors}),
    }
