"""Which output of a reward model is the reward."""

from __future__ import annotations

from wmtp.checkpoint.contents import Checkpoint
from wmtp.errors import IncompatibleModelError


def check_label(where: str, labels: int | None, label: int | None) -> None:
    """Raise IncompatibleModelError unless it is clear which output of a model is the reward; None: not known yet."""
    if labels is None:
        return
    if label is None and labels != 1:
        raise IncompatibleModelError(
            f"{where}: it has {labels} labels, and the recipe does not say which of them is the reward",
            hint="say it in the algorithm's section of the recipe (reward_index: 0), or name a model with one label",
        )
    if label is not None and label >= labels:
        raise IncompatibleModelError(
            f"{where}: it has {labels} label(s), counted from 0, and the recipe names label {label} as the reward",
            hint=f"name one from 0 to {labels - 1} in the algorithm's section of the recipe",
        )


def declared_labels(checkpoint: Checkpoint) -> int | None:
    """Return how many labels a checkpoint says that it has; None when only its output can tell."""
    config = checkpoint.config
    if isinstance(labels := config.get("num_labels"), int):
        return labels
    if isinstance(names := config.get("id2label"), dict):
        return len(names)
    # transformers gives a classifier two labels where its configuration names none.
    name = checkpoint.metadata.loading_strategy.transformers_class
    return 2 if name is not None and "SequenceClassification" in name else None
