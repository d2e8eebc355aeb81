"""From settings to transformers' TrainingArguments."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import TrainingArguments

from wmtp.devices import training_device
from wmtp.settings.config import Config
from wmtp.settings.recipe import Recipe

# Named alike in the recipe and in TrainingArguments, and passed on as they are.
_PASSED_ON = (
    "learning_rate", "per_device_train_batch_size", "per_device_eval_batch_size", "gradient_accumulation_steps",
    "lr_scheduler_type", "max_grad_norm", "weight_decay", "adam_beta1", "adam_beta2", "adam_epsilon", "optim",
    "logging_steps", "eval_steps", "save_steps", "dataloader_num_workers",
)  # fmt: skip


def training_arguments(config: Config, recipe: Recipe, directory: Path, *, validates: bool) -> TrainingArguments:
    """Return the arguments of a run.

    Args:
        config: Device and trackers.
        recipe: Everything about the training itself.
        directory: The run's directory.
        validates: Whether there is validation data.
    """
    train = recipe.train
    same: dict[str, Any] = {name: getattr(train, name) for name in _PASSED_ON}
    arguments = TrainingArguments(
        output_dir=str(directory),
        run_name=recipe.run.name,
        project=config.tracking.experiment,
        report_to=list(config.tracking.report_to),
        use_cpu=training_device(config.devices) == "cpu",
        seed=recipe.run.seed,
        data_seed=recipe.run.seed,
        # Each epoch's order follows from the seed alone, however many random numbers the model has drawn before.
        accelerator_config={"use_seedable_sampler": True},
        warmup_steps=train.warmup,
        activation_checkpointing=train.gradient_checkpointing,
        eval_strategy="steps" if validates else "no",
        eval_on_start=validates,
        metric_for_best_model="eval_ce_1" if validates else None,
        greater_is_better=False if validates else None,
        save_strategy="steps",
        save_only_model=train.sharding != "none",  # which Trainer asks for; what is saved, and how, is our own affair
        remove_unused_columns=False,
        # A loss that is not finite stops the run; it is never averaged away.
        logging_nan_inf_filter=False,
        disable_tqdm=True,
        # Either of the two is given; -1 steps means: as many as the epochs have.
        max_steps=train.max_steps or -1,
        num_train_epochs=train.num_train_epochs or 1.0,
        **same,
    )
    # One process trains on one device. On several it would get torch's old DataParallel, which splits a batch without
    # telling anyone how many valid pairs are where; torchrun starts a process for each device.
    arguments._n_gpu = min(arguments.n_gpu, 1)
    return arguments
