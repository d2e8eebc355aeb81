"""What a run would use, before anything of it is loaded: models, bytes, memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from wmtp.checkpoint.contents import Checkpoint, open_checkpoint
from wmtp.cli.output import size
from wmtp.factory import Resolution, resolve_models
from wmtp.registry import algorithms
from wmtp.untrusted import plain

if TYPE_CHECKING:
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
        memory: Bytes while training, by what they hold; activations are not counted.
        notes: What else should be known before it starts.
    """

    resolution: Resolution
    models: dict[str, dict[str, Any]]
    memory: dict[str, int]
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the plan as plain JSON values."""
        return {**self.resolution.to_dict(), "models": self.models, "memory": self.memory, "notes": self.notes}

    def summary(self) -> Iterator[str]:
        """Yield the plan in lines for a person."""
        yield self.resolution.algorithm
        yield from (f"  {plain(line)}" for line in self.resolution.describe())
        yield "to load"
        for role, model in self.models.items():
            parameters, stored = f"{model['num_parameters']:,} parameters", size(model["stored_bytes"])
            yield f"  {role}: {parameters}, {stored} stored, {size(model['bytes_to_fetch'])} to fetch"
        yield f"memory while training, without activations: {size(sum(self.memory.values()))}"
        yield from (f"  {what.replace('_', ' ')}: {size(count)}" for what, count in self.memory.items() if count)
        yield from self.notes


def plan_run(config: Config, recipe: Recipe) -> RunPlan:
    """Return what a run would use; reads metadata, config.json and headers of the models that were picked.

    Raises:
        WmtpError: If no model fits, or one that was picked is malformed.
    """
    resolution = resolve_models(config, recipe)
    cache_dir = config.paths.cache_dir
    opened = {role: open_checkpoint(found.uri, cache_dir=cache_dir) for role, found in resolution.chosen.items()}
    models = {
        role: {
            "uri": checkpoint.where,
            "num_parameters": sum(tensor.num_elements for tensor in checkpoint.tensors),
            "stored_bytes": sum(tensor.num_bytes for tensor in checkpoint.tensors),
            "bytes_to_fetch": checkpoint.store.bytes_to_fetch({tensor.file for tensor in checkpoint.tensors}),
        }
        for role, checkpoint in opened.items()
    }
    untrained = algorithms.get(recipe.train.algo).trainable
    notes = [untrained] if untrained else []
    return RunPlan(resolution, models, _memory(config, recipe, opened, notes), tuple(notes))


def _memory(config: Config, recipe: Recipe, opened: dict[str, Checkpoint], notes: list[str]) -> dict[str, int]:
    num_parameters = {role: sum(tensor.num_elements for tensor in c.tensors) for role, c in opened.items()}
    width = _width(config, opened["base"], notes)
    trained = num_parameters["base"]
    num_values, value_bytes = _OPTIMIZERS.get(recipe.train.optim, _ADAMW)
    return {
        "weights": trained * width,
        "gradients": trained * width,
        "optimizer": trained * num_values * (value_bytes or width),
        "other_models": sum(count for role, count in num_parameters.items() if role != "base") * width,
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


def _logits(recipe: Recipe, base: Checkpoint) -> int:
    """Bytes of logits and their gradients, where the model's own class may return them for every head at once."""
    vocab_size = base.config.get("vocab_size")
    if base.metadata.loading_strategy.custom_module_file is None or not isinstance(vocab_size, int):
        return 0
    rows, length = recipe.train.per_device_train_batch_size, recipe.data.train.max_length
    horizon = recipe.mtp.horizon or base.metadata.num_heads or 1
    return 2 * _DTYPE_BYTES["float32"] * rows * length * horizon * vocab_size
