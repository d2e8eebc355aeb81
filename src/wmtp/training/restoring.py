"""An algorithm's own state, and the value head where it has one: taken from a base model, kept in checkpoints."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from wmtp.algorithms.base import Algorithm, ValueAlgorithm
from wmtp.errors import CheckpointError, TrainingError
from wmtp.loaders.base import LoadResult
from wmtp.models.adapter import ForeignModel
from wmtp.models.mtp import MTPForCausalLM
from wmtp.models.value_head import WithValueHead
from wmtp.publishing.algorithm_state import ALGORITHM_STATE_FILE, read_state, write_state
from wmtp.untrusted import first_few, show

TrainedModel = MTPForCausalLM | ForeignModel | WithValueHead


def restore_algorithm(
    algorithm: Algorithm, model: MTPForCausalLM | ForeignModel, base: LoadResult, width: int | None, seed: int
) -> TrainedModel:
    """Give an algorithm what an earlier run of it left in the base model's checkpoint, and the value head it needs.

    Args:
        algorithm: Its running figures are restored.
        model: What is trained.
        base: Where the model comes from.
        width: Of the model's hidden state; None when it gives none.
        seed: What a new value head begins from.

    Returns:
        The model, with a value head on it where the algorithm needs one.

    Raises:
        CheckpointError: If the checkpoint has such a state and it does not fit.
        TrainingError: If a value head is needed and would be random, or cannot stand on this model.
    """
    kept = _kept_by_same_algorithm(algorithm, base)
    if kept is not None:
        algorithm.restore(kept[0])
    if not isinstance(algorithm, ValueAlgorithm):
        return model
    if kept is None and algorithm.fit_steps == 0:
        raise TrainingError(
            f"{base.checkpoint.where}: has no value head of an earlier run, and {algorithm.name} is to fit none",
            hint="let its first stage fit one, or take a checkpoint that it has written",
        )
    if width is None:
        raise TrainingError(
            f"{base.checkpoint.where}: its class returns logits and no hidden states, so no value head can stand on it",
            hint="give the class forward_heads and unembedding; docs/extending.md shows both",
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        wrapped = WithValueHead(model, width, detach_trunk=algorithm.detach_trunk)
    if kept is not None:
        _load_strictly(wrapped.value_head, kept[1], base.checkpoint.store.where(ALGORITHM_STATE_FILE))
    return wrapped.to(next(model.parameters()).device)


def kept_state(algorithm: Algorithm, model: nn.Module) -> bytes:
    """Return the content of `algorithm_state.safetensors`; empty when there is nothing to keep."""
    head = model.value_head.state_dict() if isinstance(model, WithValueHead) else {}
    return write_state(algorithm.state(), head)


def _kept_by_same_algorithm(
    algorithm: Algorithm, base: LoadResult
) -> tuple[dict[str, Tensor], dict[str, Tensor]] | None:
    store = base.checkpoint.store
    is_same = base.metadata.training_algorithm == algorithm.training_algorithm
    return read_state(store) if is_same and store.has(ALGORITHM_STATE_FILE) else None


def _load_strictly(head: nn.Module, tensors: Mapping[str, Tensor], where: str) -> None:
    expected = head.state_dict()
    shapes = {name: (str(tensor.dtype), *tensor.shape) for name, tensor in expected.items()}
    found = {name: (str(tensor.dtype), *tensor.shape) for name, tensor in tensors.items()}
    faults = [
        f"{show(name)}: found {found.get(name, 'nothing')}, expected {shapes.get(name, 'nothing')}"
        for name in sorted({*shapes, *found})
        if shapes.get(name) != found.get(name)
    ]
    if faults:
        raise CheckpointError(
            f"{where}: the value head in it does not fit this model",
            hint="take the file again from where the checkpoint was published",
            faults=first_few(faults),
        )
    head.load_state_dict(tensors)
