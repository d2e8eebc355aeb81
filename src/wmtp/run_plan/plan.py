"""What a run would use, before anything of it is loaded: models, data, scores, compute, memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wmtp.algorithms.base import Algorithm, ValueAlgorithm
from wmtp.checkpoint.contents import Checkpoint
from wmtp.factory import ComponentFactory, Resolution, resolve_models
from wmtp.html_table import html_lines
from wmtp.run_plan.cost import RunCost, num_value_parameters, online_roles, run_cost, score_facts, score_line
from wmtp.run_plan.data import DataEstimate, estimate_data
from wmtp.run_plan.models import open_models, quantised_notes, require_apart, scoring_bytes
from wmtp.run_plan.needs import open_questions, require_needs
from wmtp.run_plan.references import known_losses, reference_notes
from wmtp.run_plan.trained import TrainedParameters, trained_parameters
from wmtp.untrusted import plain
from wmtp.wording import size

if TYPE_CHECKING:
    from wmtp.comparison.references import ReferenceLosses
    from wmtp.settings.config import Config
    from wmtp.settings.recipe import Recipe

_DTYPE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
# Values that the optimizer keeps for a parameter, and their bytes; None: as wide as the parameter.
_OPTIMIZERS = {"adamw_bnb_8bit": (2, 1), "adafactor": (0, None), "sgd": (0, None)}
_ADAMW = (2, None)


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

    def _repr_html_(self) -> str:
        return html_lines("Plan of a run", self.summary())

    def to_dict(self) -> dict[str, Any]:
        """Return the plan as plain JSON values."""
        facts = {"models": self.models, "data": self.data.to_dict(), "scores": self.scores}
        counted = {"cost": asdict(self.cost), "trained": self.trained.to_dict(), "memory": self.memory}
        facts["references"] = [losses.to_dict() for losses in self.references.values() if losses is not None]
        return {**self.resolution.to_dict(), **facts, **counted, "notes": self.notes}

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
        yield f"memory while training, without activations: {size(sum(self.memory.values()))}"
        yield from (f"  {what.replace('_', ' ')}: {size(count)}" for what, count in self.memory.items() if count)
        yield from self.notes


def plan_run(
    config: Config, recipe: Recipe, environment: Mapping[str, str] | None = None, *, trains_here: bool = False
) -> RunPlan:
    """Return what a run would use, once what it needs is there.

    Reads metadata, config.json and headers of the models that were picked, lengths and beginnings of data files.

    Args:
        config: Where models are, and what to compute on.
        recipe: What to train.
        environment: Variables that say whether this is one of several processes; None: `os.environ`.
        trains_here: Whether the devices of this machine are asked, as it will train; imports torch.

    Raises:
        TrainingError: If a need of the run is not met, see `run_plan.needs`; if rows are packed for a model that is
            known to let documents see each other; or if the model cannot be trained in the part that the recipe names.
        WmtpError: If no model fits, one that was picked is malformed, or the data lacks a file or a key.
    """
    require_needs(config, recipe, environment, trains_here=trains_here)
    resolution = resolve_models(config, recipe)
    algorithm = ComponentFactory.create_algorithm(recipe)
    data = estimate_data(recipe.data, [score.column for score in algorithm.scores if score.column is not None])
    opened = open_models(config, resolution)
    require_apart(recipe, algorithm, opened)
    trained = trained_parameters(recipe, opened["base"])
    num_parameters = {role: _num_parameters(checkpoint) for role, checkpoint in opened.items()}
    num_value = _num_value_parameters(algorithm, opened["base"])
    uris = {role: checkpoint.where for role, checkpoint in opened.items()}
    kept_in = Path(config.paths.output_dir) / "scores"
    notes = [f"data.train: {data.left_out}"] if data.left_out else []
    notes += quantised_notes(config.devices.quantize, opened)
    notes += [] if trains_here else open_questions(config.devices)
    return RunPlan(
        resolution,
        {role: _model_facts(checkpoint) for role, checkpoint in opened.items()},
        data,
        score_facts(algorithm, uris, data, kept_in),
        known_losses(algorithm, opened, recipe.data, kept_in, config.devices.quantize),
        run_cost(recipe, algorithm, num_parameters, trained, data, num_value=num_value),
        trained,
        _memory(config, recipe, algorithm, opened, trained, notes),
        tuple(notes),
    )


def _num_parameters(checkpoint: Checkpoint) -> int:
    return sum(tensor.num_elements for tensor in checkpoint.tensors)


def _model_facts(checkpoint: Checkpoint) -> dict[str, Any]:
    return {
        "uri": checkpoint.where,
        "num_parameters": _num_parameters(checkpoint),
        "stored_bytes": sum(tensor.num_bytes for tensor in checkpoint.tensors),
        "bytes_to_fetch": checkpoint.store.bytes_to_fetch({tensor.file for tensor in checkpoint.tensors}),
    }


def _memory(
    config: Config,
    recipe: Recipe,
    algorithm: Algorithm,
    opened: Mapping[str, Checkpoint],
    trained: TrainedParameters,
    notes: list[str],
) -> dict[str, int]:
    width = _width(config, opened["base"], notes)
    # Adapters and value heads are in float32, whatever the trunk is in.
    adapters = trained.adapters * _DTYPE_BYTES["float32"]
    num_values, value_bytes = _OPTIMIZERS.get(recipe.train.optim, _ADAMW)
    moments = trained.of_model * (value_bytes or width) + trained.adapters * (value_bytes or _DTYPE_BYTES["float32"])
    beside = online_roles(algorithm)
    return {
        "weights": _num_parameters(opened["base"]) * width + adapters,
        "gradients": trained.of_model * width + adapters,
        "optimizer": num_values * moments,
        # A model whose scores are computed before is gone when training begins.
        "other_models": sum(scoring_bytes(opened[role], config.devices.quantize.of(role), width) for role in beside),
        # With gradients and two moments.
        "value_head": 4 * _num_value_parameters(algorithm, opened["base"]) * _DTYPE_BYTES["float32"],
        "logits": _logits(recipe, opened["base"]),
    }


def _width(config: Config, base: Checkpoint, notes: list[str]) -> int:
    """Bytes of a parameter while training."""
    dtype, device = config.devices.dtype, config.devices.device
    if dtype != "auto":
        return _DTYPE_BYTES[dtype]
    if device.startswith("cuda"):
        stored, count = sum(t.num_bytes for t in base.tensors), sum(t.num_elements for t in base.tensors)
        return round(stored / max(count, 1))
    if device == "auto":
        notes.append("counted in float32, as on a CPU; on CUDA devices.dtype auto trains in the stored dtype")
    return _DTYPE_BYTES["float32"]


def _num_value_parameters(algorithm: Algorithm, base: Checkpoint) -> int:
    dim = base.config.get("hidden_size", base.config.get("n_embd"))
    if not isinstance(algorithm, ValueAlgorithm) or not isinstance(dim, int):
        return 0
    return num_value_parameters(algorithm, dim)


def _logits(recipe: Recipe, base: Checkpoint) -> int:
    """Bytes of logits and their gradients, where the model's own class may return them for every head at once."""
    vocab_size = base.config.get("vocab_size")
    if base.metadata.loading_strategy.custom_module_file is None or not isinstance(vocab_size, int):
        return 0
    rows, length = recipe.train.per_device_train_batch_size, recipe.data.train.max_length
    horizon = recipe.mtp.horizon or base.metadata.num_heads or 1
    return 2 * _DTYPE_BYTES["float32"] * rows * length * horizon * vocab_size
