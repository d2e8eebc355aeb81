"""Oracles of a model in training: padding, packing, accumulation, where gradients go, and the two backends."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

import torch
import torch.nn.functional as F  # noqa: N812 - the name that everyone knows it by
from torch import Tensor

from wmtp.data.example import Batch, Example
from wmtp.data.rows import RowDataset
from wmtp.errors import TrainingError
from wmtp.models.adapter import check_packing
from wmtp.models.foreign import LogitsModel
from wmtp.models.losses import Backend, fitting_backend
from wmtp.selftest.oracles import (
    GRADIENT_TOLERANCE,
    LOSS_TOLERANCE,
    WEIGHT_TOLERANCE,
    Finding,
    gradient_difference,
)
from wmtp.selftest.subject import INVARIANT, MODES, NUM_DOCUMENTS, Step, Subject

NUM_PADDING = 3


def padding_changes_no_loss(subject: Subject) -> Iterator[Finding]:
    """A token's loss is the same in a padded batch as in a row that ends where its document ends."""
    padded, alone = cast("Tensor", subject.output.ce), []
    with torch.no_grad():
        for index in range(NUM_DOCUMENTS):
            ce = subject.model(**subject.inputs(subject.batch(slice(index, index + 1)))).ce
            alone.append(F.pad(ce[0], (0, 0, 0, padded.shape[1] - ce.shape[1])))
    difference = float((padded - torch.stack(alone)).abs().max())
    yield Finding("padding", "losses of documents padded, and alone", difference, LOSS_TOLERANCE)


def padding_changes_no_weight(subject: Subject) -> Iterator[Finding]:
    """More columns of padding leave every algorithm's weights as they are."""
    for name, build in MODES.items():
        if lacking := subject.lacks(build):
            yield Finding("padding", f"{name}: weights", note=lacking)
            continue
        trainer = subject.experienced_trainer(build)
        batches = (subject.batch(), with_padding(subject.batch()))
        signals, wider = (trainer.signals(batch) for batch in batches)
        weights, widened = (trainer.algorithm.weights(each) for each in (signals, wider))
        before, after = weights[signals.valid], widened[wider.valid]
        difference = float((before - after).abs().max()) if before.shape == after.shape else float("inf")
        yield Finding("padding", f"{name}: weights", difference, WEIGHT_TOLERANCE)


def with_padding(batch: Batch) -> Batch:
    """Return a batch with three more columns of padding."""
    wider = {name: F.pad(tensor, (0, NUM_PADDING), value=0) for name, tensor in batch.items()}
    wider["labels"][:, -NUM_PADDING:] = -100
    return wider


def packed_documents_are_as_unpacked_ones(subject: Subject) -> Iterator[Finding]:
    """Two documents in one row have the losses that each has in a row of its own."""
    compared = "losses of documents in one row, and alone"
    try:
        check_packing(subject.model)
    except TrainingError as error:
        # No fault: training refuses to pack for such a model, and says so.
        yield Finding("packing", compared, note=error.problem)
        return
    # Without prompts: a prompt that nobody learns would hide that the document before it looks across.
    rows = [(Example(each.input_ids, scores=each.scores),) for each in list(subject.rows.examples)[:2]]
    examples = [row[0] for row in rows]
    packed = RowDataset([tuple(examples)], packed_length=sum(map(len, examples)))
    batches = (subject.on_device(packed.collate(packed.rows)), subject.on_device(RowDataset(rows).collate(rows)))
    with torch.no_grad():
        together, apart = (subject.model(**subject.inputs(batch)).ce for batch in batches)
    alone = torch.cat([apart[index, : len(example)] for index, example in enumerate(examples)])
    yield Finding("packing", compared, float((together[0] - alone).abs().max()), LOSS_TOLERANCE)


def accumulation_changes_no_gradient(subject: Subject) -> Iterator[Finding]:
    """Eight documents at once, four times two and eight times one give the same gradient, in modes that promise it."""
    for name, build in INVARIANT.items():
        if lacking := subject.lacks(build):
            yield Finding("accumulation", name, note=lacking)
            continue
        at_once, *parted = (_third_step(subject, name, size) for size in (8, 2, 1))
        difference = max(gradient_difference(found, at_once) for found in parted)
        yield Finding("accumulation", f"{name}: gradients of 8x1, 2x4, 1x8", difference, GRADIENT_TOLERANCE)


def _third_step(subject: Subject, name: str, size: int) -> Step:
    trainer = subject.trainer(INVARIANT[name])
    batches = [subject.batch(slice(start, start + size)) for start in range(0, NUM_DOCUMENTS, size)]
    subject.gain_experience(trainer, batches)
    return subject.step(trainer, batches)


def backends_agree(subject: Subject) -> Iterator[Finding]:
    """The fused cross-entropy and plain PyTorch give the same losses and gradients; says which one is used."""
    oracle = "loss backends"
    if isinstance(subject.model, LogitsModel) and subject.model.makes_logits():
        yield Finding(oracle, "torch, and eager", note="the model's class makes its logits itself")
        return
    kept, steps, losses = subject.model.loss_backend, [], []
    backends: tuple[Backend, ...] = ("torch", "eager")
    for backend in backends:
        subject.model.loss_backend = backend
        with torch.no_grad():
            losses.append(subject.model(**subject.inputs(subject.batch())).ce)
        steps.append(subject.step(subject.trainer(MODES["baseline-mtp"]), [subject.batch()]))
    subject.model.loss_backend = kept
    yield Finding(oracle, "losses of torch, and eager", float((losses[0] - losses[1]).abs().max()), LOSS_TOLERANCE)
    yield Finding(oracle, "gradients of torch, and eager", gradient_difference(*steps), GRADIENT_TOLERANCE)
    chosen = fitting_backend(next(subject.model.parameters()))
    yield Finding(oracle, "chosen by loss.backend: auto", note=chosen)
