"""Bytes of what training keeps in memory, on one device that has the whole model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from wmtp.algorithms.base import Algorithm, ValueAlgorithm
from wmtp.checkpoint.contents import Checkpoint
from wmtp.run_plan.cost import num_value_parameters, online_roles
from wmtp.run_plan.models import scoring_bytes

if TYPE_CHECKING:
    from wmtp.run_plan.trained import TrainedParameters
    from wmtp.settings.config import Config
    from wmtp.settings.recipe import Recipe

FULL_BYTES = 4  # of a value in float32: of adapters, value heads and shards
_DTYPE_BYTES = {"float32": FULL_BYTES, "bfloat16": 2, "float16": 2}
# Values that the optimizer keeps for a parameter, and their bytes; None: as wide as the parameter.
_OPTIMIZERS = {"adamw_bnb_8bit": (2, 1), "adafactor": (0, None), "sgd": (0, None)}
_ADAMW = (2, None)


def memory_of(
    config: Config,
    recipe: Recipe,
    algorithm: Algorithm,
    opened: Mapping[str, Checkpoint],
    trained: TrainedParameters,
    width: int,
) -> dict[str, int]:
    """Return bytes while training by what they hold, without activations; `width` is that of a value."""
    # Adapters and value heads are in float32, whatever the trunk is in.
    adapters = trained.adapters * FULL_BYTES
    return {
        "weights": num_parameters(opened["base"]) * width + adapters,
        "gradients": trained.of_model * width + adapters,
        "optimizer": optimizer_bytes(recipe, trained.of_model, width)
        + optimizer_bytes(recipe, trained.adapters, FULL_BYTES),
        "other_models": other_models(config, algorithm, opened, width),
        # With gradients and two moments.
        "value_head": 4 * value_parameters(algorithm, opened["base"]) * FULL_BYTES,
        "logits": _logits(recipe, opened["base"]),
    }


def num_parameters(checkpoint: Checkpoint) -> int:
    """Return how many values the files of a checkpoint hold."""
    return sum(tensor.num_elements for tensor in checkpoint.tensors)


def optimizer_bytes(recipe: Recipe, count: int, width: int) -> int:
    """Return bytes of the optimizer's state for so many parameters of so many bytes each."""
    num_values, value_bytes = _OPTIMIZERS.get(recipe.train.optim, _ADAMW)
    return num_values * count * (value_bytes or width)


def other_models(config: Config, algorithm: Algorithm, opened: Mapping[str, Checkpoint], width: int) -> int:
    """Return bytes of the models that score while the run trains.

    One whose scores are computed before is gone when training begins.
    """
    quantize = config.devices.quantize
    return sum(scoring_bytes(opened[role], quantize.of(role), width) for role in online_roles(algorithm))


def width_of(config: Config, base: Checkpoint, notes: list[str]) -> int:
    """Return the bytes of a value that the model computes with; `notes` get what was assumed."""
    dtype, device = config.devices.dtype, config.devices.device
    if dtype != "auto":
        return _DTYPE_BYTES[dtype]
    if device.startswith("cuda"):
        stored, count = sum(t.num_bytes for t in base.tensors), sum(t.num_elements for t in base.tensors)
        return round(stored / max(count, 1))
    if device == "auto":
        notes.append("counted in float32, as on a CPU; on CUDA devices.dtype auto trains in the stored dtype")
    return FULL_BYTES


def value_parameters(algorithm: Algorithm, base: Checkpoint) -> int:
    """Return how many parameters value heads on a model have; 0 without them, and where its width is not known."""
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
    return 2 * FULL_BYTES * rows * length * horizon * vocab_size
