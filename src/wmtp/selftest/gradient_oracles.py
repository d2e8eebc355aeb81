"""Oracles of gradients: what the loss reaches, what it must not reach, and how strongly."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from wmtp.algorithms.base import ValueAlgorithm
from wmtp.algorithms.weighting import weighted_sum
from wmtp.models.adapter import unwrapped
from wmtp.selftest.oracles import CRITIC_MODES, WEIGHT_TOLERANCE, Finding, in_each_mode
from wmtp.selftest.subject import MODES, Subject
from wmtp.training.trainer import WMTPTrainer


def gradient_of_each_loss_is_its_weight(subject: Subject) -> Iterator[Finding]:
    """`dL / dCE[t,k]` is `prior[k] * w[t,k] / N`: weights are constants, and N counts the valid pairs of the step."""
    oracle = "dL/dCE is weight / N"
    for name, build in MODES.items():
        if lacking := subject.lacks(build):
            yield Finding(oracle, name, note=lacking)
            continue
        found, expected = _gradient_of_losses(subject, subject.experienced_trainer(build))
        yield Finding(oracle, name, float((found - expected).abs().max()), WEIGHT_TOLERANCE)


def _gradient_of_losses(subject: Subject, trainer: WMTPTrainer) -> tuple[Tensor, Tensor]:
    """Return N times the gradient that every cross-entropy gets, and what it should be."""
    batch = subject.batch()
    signals = trainer.signals(batch)
    weights = trainer.algorithm.weights(signals).detach() * trainer.head_prior
    [taken], divisor = trainer.get_batch_samples(iter([batch]), 1, subject.device)
    loss, output = trainer.compute_loss(trainer.model, taken, return_outputs=True, num_items_in_batch=divisor)
    (found,) = torch.autograd.grad(loss, output.ce)
    return found * subject.num_pairs(trainer.head_prior), torch.where(signals.valid, weights, 0)


def no_gradient_reaches_scores(subject: Subject) -> Iterator[Finding]:
    """A score is a fact: the loss has no gradient there, even where one could be had."""
    for name in (name for name in MODES if name.startswith("rho1")):
        trainer = subject.experienced_trainer(MODES[name])
        batch = subject.batch()
        batch["ref_nll"].requires_grad_()
        [taken], divisor = trainer.get_batch_samples(iter([batch]), 1, subject.device)
        loss = trainer.compute_loss(trainer.model, taken, num_items_in_batch=divisor)
        (found,) = torch.autograd.grad(loss, batch["ref_nll"], allow_unused=True)
        yield Finding("no gradient to scores", name, 0.0 if found is None else float(found.abs().max()))


def loss_reaches_every_part(subject: Subject) -> Iterator[Finding]:
    """The loss moves the trunk and every head, and the loss of every head alone moves the trunk."""
    oracle = "gradient reaches all"
    step = subject.step(subject.trainer(MODES["baseline-mtp"]), [subject.batch()])
    moved = {
        id(parameter)
        for parameter, gradient in zip(subject.model.parameters(), step.gradients, strict=True)
        if bool(gradient.any())
    }
    parts = _parts(unwrapped(subject.model))
    still = [name for name, ids in parts.items() if not ids & moved]
    yield Finding(oracle, f"{len(parts)} parts of the model", float(len(still)), note=", ".join(still))
    yield _heads_that_reach_the_trunk(subject, oracle)


def _parts(model: nn.Module) -> dict[str, set[int]]:
    """Return the trained parameters of each part: what stands directly in the model, or in a list there."""
    parts: dict[str, nn.Module] = {}
    for name, child in model.named_children():
        inner = isinstance(child, (nn.ModuleList, nn.ModuleDict))
        parts |= {f"{name}.{key}": part for key, part in child.named_children()} if inner else {name: child}
    trained = {name: {id(p) for p in part.parameters() if p.requires_grad} for name, part in parts.items()}
    return {name: ids for name, ids in trained.items() if ids}


def _heads_that_reach_the_trunk(subject: Subject, oracle: str) -> Finding:
    compared = f"{subject.num_heads} heads to the embedded tokens"
    with _embedded_tokens(subject.model) as embedded:
        ce = subject.model(**subject.inputs(subject.batch())).ce
    if not embedded:
        return Finding(oracle, compared, note="the model has no torch.nn.Embedding")
    failed = []
    for k in range(subject.num_heads):
        (found,) = torch.autograd.grad(ce[..., k].sum(), embedded[0], retain_graph=True, allow_unused=True)
        if found is None or not bool(found.any()):
            failed.append(f"head {k + 1}")
    return Finding(oracle, compared, float(len(failed)), note=", ".join(failed))


@contextmanager
def _embedded_tokens(model: nn.Module) -> Iterator[list[Tensor]]:
    """Record what embeddings give while the block runs, the first first: where a trunk begins, tied or not."""
    recorded: list[Tensor] = []

    def record(_module: nn.Module, _args: Any, output: Tensor) -> None:
        recorded.append(output)

    handles = [m.register_forward_hook(record) for m in model.modules() if isinstance(m, nn.Embedding)]
    try:
        yield recorded
    finally:
        for handle in handles:
            handle.remove()


@in_each_mode("value head apart", CRITIC_MODES)
def value_head_and_trunk_are_apart(subject: Subject, name: str) -> Iterator[Finding]:
    """The value loss moves value heads and nothing else; cross-entropy, by its weights too, never value heads."""
    trainer = subject.experienced_trainer(MODES[name])
    signals = trainer.signals(subject.batch())
    algorithm, valued = trainer.algorithm, subject.valued
    assert isinstance(algorithm, ValueAlgorithm)
    assert valued is not None
    value_loss = algorithm.value_loss(signals)
    yield Finding("value head apart", f"{name}: value loss to the model", _largest(value_loss, subject.model))
    is_moved = _largest(value_loss, valued.value_heads) > 0
    yield Finding("value head apart", f"{name}: value loss to the value head", 0.0 if is_moved else 1.0)
    output = valued(**subject.inputs(subject.batch()))
    signals = trainer.signals(subject.batch())
    loss = weighted_sum(output.ce, algorithm.weights(signals), signals.valid)
    yield Finding("value head apart", f"{name}: cross-entropy to the value head", _largest(loss, valued.value_heads))


def _largest(loss: Tensor, module: nn.Module) -> float:
    """Return the largest gradient that a loss has in a module's parameters; 0 where it does not depend on them."""
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    gradients = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
    return max((float(gradient.abs().max()) for gradient in gradients if gradient is not None), default=0.0)
