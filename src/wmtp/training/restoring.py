"""An algorithm's own state, and value heads where it has them: taken from a base model, kept in checkpoints."""

from __future__ import annotations

import logging
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from wmtp.algorithms.base import Algorithm, ValueAlgorithm
from wmtp.errors import CheckpointError, TrainingError
from wmtp.loaders.base import LoadResult
from wmtp.models.foreign import ForeignModel
from wmtp.models.mtp import MTPForCausalLM
from wmtp.models.value_heads import ValueHeads, WithValueHead, kind_of_heads
from wmtp.publishing.algorithm_state import ALGORITHM_STATE_FILE, read_state, write_state
from wmtp.storage.store import Store
from wmtp.untrusted import first_few, show

logger = logging.getLogger("wmtp")

TrainedModel = MTPForCausalLM | ForeignModel | WithValueHead


def restore_algorithm(
    algorithm: Algorithm, model: MTPForCausalLM | ForeignModel, base: LoadResult, width: int | None, seed: int
) -> TrainedModel:
    """Give an algorithm what an earlier run of it left in the base model's checkpoint, and the value heads it needs.

    Heads of another kind than it needs are left aside with the figures beside them, and the log says so: what was
    fitted for one way of giving credit means nothing in another.

    Args:
        algorithm: Its running figures are restored.
        model: What is trained.
        base: Where the model comes from.
        width: Of the model's hidden state; None when it gives none.
        seed: What new value heads begin from.

    Returns:
        The model, with value heads on it where the algorithm needs them.

    Raises:
        CheckpointError: If the checkpoint has such a state and it does not fit.
        TrainingError: If value heads are needed and would be random, or cannot stand on this model.
    """
    kept = _kept_by_same_algorithm(algorithm, base)
    if not isinstance(algorithm, ValueAlgorithm):
        if kept is not None:
            algorithm.restore(kept[0])
        return model
    wrapped = _with_new_heads(algorithm, model, base, width, seed)
    where = base.checkpoint.store.where(ALGORITHM_STATE_FILE)
    if kept is not None and _is_of_another_kind(wrapped.value_heads, kept[1], where):
        kept = None
    if kept is None and algorithm.fit_steps == 0:
        raise TrainingError(
            f"{base.checkpoint.where}: has no value heads of this kind from an earlier run, and {algorithm.name} is to"
            " fit none",
            hint="let its first stage fit them, or take a checkpoint that it has written with the same settings",
        )
    if kept is not None:
        algorithm.restore(kept[0])
        _load_strictly(wrapped.value_heads, kept[1], where)
    return wrapped.to(next(model.parameters()).device)


def restore_kept(algorithm: Algorithm, model: nn.Module, store: Store) -> None:
    """Give an algorithm, and the value heads of a model, what a checkpoint of the same run has of them.

    Raises:
        CheckpointError: If it does not fit.
    """
    if not store.has(ALGORITHM_STATE_FILE):
        return
    figures, heads = read_state(store)
    algorithm.restore(figures)
    if isinstance(model, WithValueHead):
        _load_strictly(model.value_heads, heads, store.where(ALGORITHM_STATE_FILE))


def _with_new_heads(
    algorithm: ValueAlgorithm, model: MTPForCausalLM | ForeignModel, base: LoadResult, width: int | None, seed: int
) -> WithValueHead:
    if width is None:
        raise TrainingError(
            f"{base.checkpoint.where}: its class returns logits and no hidden states, so no value head can stand on it",
            hint="give the class forward_heads and unembedding; docs/extending.md shows both",
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return WithValueHead(
            model,
            width,
            detach_trunk=algorithm.detach_trunk,
            folds=algorithm.folds,
            values_tokens=algorithm.values_tokens,
        )


def _is_of_another_kind(needed: ValueHeads, kept: Mapping[str, Tensor], where: str) -> bool:
    found, expected = kind_of_heads(kept), kind_of_heads(needed.state_dict())
    if found is None or found == expected:
        return False  # of no kind that there is: damaged, which loading them says
    logger.warning("%s: holds %s; this run needs %s, and fits them anew", where, found, expected)
    return True


def kept_state(algorithm: Algorithm, model: nn.Module) -> bytes:
    """Return the content of `algorithm_state.safetensors`; empty when there is nothing to keep."""
    heads = model.value_heads.state_dict() if isinstance(model, WithValueHead) else {}
    return write_state(algorithm.state(), heads)


def _kept_by_same_algorithm(
    algorithm: Algorithm, base: LoadResult
) -> tuple[dict[str, Tensor], dict[str, Tensor]] | None:
    store = base.checkpoint.store
    is_same = base.metadata.training_algorithm == algorithm.training_algorithm
    return read_state(store) if is_same and store.has(ALGORITHM_STATE_FILE) else None


def _load_strictly(heads: nn.Module, tensors: Mapping[str, Tensor], where: str) -> None:
    expected = heads.state_dict()
    shapes = {name: (str(tensor.dtype), *tensor.shape) for name, tensor in expected.items()}
    found = {name: (str(tensor.dtype), *tensor.shape) for name, tensor in tensors.items()}
    faults = [
        f"{show(name)}: found {found.get(name, 'nothing')}, expected {shapes.get(name, 'nothing')}"
        for name in sorted({*shapes, *found})
        if shapes.get(name) != found.get(name)
    ]
    if faults:
        raise CheckpointError(
            f"{where}: the value heads in it do not fit this model",
            hint="take the file again from where the checkpoint was published",
            faults=first_few(faults),
        )
    heads.load_state_dict(tensors)
