"""The first stage of an algorithm with value heads: they alone are fitted, and shown to have learned something."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable
from tempfile import TemporaryDirectory

import torch
from transformers import IntervalStrategy, SchedulerType, TrainingArguments

from wmtp.algorithms.base import ValueAlgorithm
from wmtp.algorithms.explained import ValueStates, explained_variance
from wmtp.data.rows import RowDataset
from wmtp.models.value_heads import WithValueHead
from wmtp.training.trainer import WMTPTrainer

logger = logging.getLogger("wmtp")

PARTS = 10
_MAX_MEASURED = 256

BuildTrainer = Callable[[TrainingArguments, RowDataset], WMTPTrainer]


def fit_values(
    algorithm: ValueAlgorithm,
    model: WithValueHead,
    rows: RowDataset,
    arguments: TrainingArguments,
    build_trainer: BuildTrainer,
) -> list[float]:
    """Train the value heads with the trunk frozen, and measure them on rows that they have not seen.

    A fifth of the rows is measured and not trained on in this stage, up to 256 of them.

    Args:
        algorithm: Gives the value loss, the number of steps and the rate.
        model: Its value heads are trained; nothing else of it changes.
        rows: The training rows, with scores.
        arguments: Those of the whole run.
        build_trainer: Returns a trainer of the value heads alone, for arguments and rows.

    Returns:
        Explained variance by relative position in a document: ten equal parts, the last one its end. `require_fit` of
        the algorithm says whether that is enough.
    """
    learned, measured = _split(rows)
    frozen = [parameter for parameter in model.model.parameters() if parameter.requires_grad]
    for parameter in frozen:
        parameter.requires_grad_(False)
    try:
        # A trainer makes its directory at once, and a run that ends in this stage should leave none.
        with TemporaryDirectory() as unused:
            trainer = build_trainer(_stage_arguments(arguments, algorithm, unused), learned)
            trainer.train()
            explained = trainer.of_first_process(explained_by_position(trainer, measured))
    finally:
        for parameter in frozen:
            parameter.requires_grad_(True)
    curve = " ".join(f"{share:.3f}" for share in explained)
    logger.info(
        "value heads, %d steps: explained variance from begin to end of documents: %s", algorithm.fit_steps, curve
    )
    return explained


@torch.no_grad()
def explained_by_position(trainer: WMTPTrainer, rows: RowDataset) -> list[float]:
    """Return explained variance of the reward by relative position, over rows; NaN where no state lies."""
    algorithm = trainer.algorithm
    assert isinstance(algorithm, ValueAlgorithm)
    size = trainer.args.per_device_eval_batch_size
    batches = [rows.rows[start : start + size] for start in range(0, len(rows), size)]
    trainer.model.eval()
    states = [algorithm.value_states(trainer.signals(rows.collate(batch))) for batch in batches]
    trainer.model.train()
    return explained_variance(ValueStates.joined(states), parts=PARTS)


def _split(rows: RowDataset) -> tuple[RowDataset, RowDataset]:
    """Return the rows to learn and those to measure on; the same ones where there are too few for both."""
    # At random, but always the same: data may come in a pattern, of which every fifth row would be one part.
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0)).tolist()
    num_measured = min(max(1, len(rows) // 5), _MAX_MEASURED)
    if len(rows) == num_measured:
        return rows, rows
    measured, learned = order[:num_measured], sorted(order[num_measured:])
    return rows.take(learned), rows.take(measured)


def _stage_arguments(arguments: TrainingArguments, algorithm: ValueAlgorithm, directory: str) -> TrainingArguments:
    stage = copy.deepcopy(arguments)
    stage.output_dir = directory
    stage.max_steps, stage.learning_rate = algorithm.fit_steps, algorithm.value_learning_rate
    stage.lr_scheduler_type, stage.warmup_steps = SchedulerType.CONSTANT, 0
    stage.eval_strategy, stage.eval_on_start = IntervalStrategy.NO, False
    stage.report_to = []
    stage.metric_for_best_model = None
    stage.activation_checkpointing = False  # nothing flows back through the trunk
    return stage
