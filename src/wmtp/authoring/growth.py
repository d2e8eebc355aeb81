"""What `grow` proves of a model before it is written, and of what was written before it has its final name."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedModel

from wmtp.comparison.deep import refuse_unfit, unfit_values
from wmtp.errors import CheckpointError, WmtpError
from wmtp.loaders.base import LoadResult
from wmtp.loaders.standardized import plan_load
from wmtp.models.mtp import MTPForCausalLM


def check_values(trunk: PreTrainedModel, loaded: LoadResult) -> None:
    """Raise CheckpointError naming each tensor with NaN or infinite values: no head that is equal to it can be made."""
    values = trunk.state_dict()
    filled = [assignment for assignment in loaded.plan.assignments if not assignment.repeats]
    faults = [fault for a in filled if (fault := unfit_values(a.source, values[a.names[0]]))]
    refuse_unfit(faults, where=loaded.checkpoint.where)


def check_logits(logits: Tensor, ids: Tensor, loaded: LoadResult) -> None:
    """Raise CheckpointError where a model's own logits are none of each token, or not finite."""
    if logits.shape[:-1] != ids.shape:
        raise CheckpointError(
            f"{loaded.checkpoint.where}: the model answers {list(ids.shape)} token ids with logits of shape"
            f" {list(logits.shape)}, and not with one row of them a token",
            hint="heads stand on models that say the next token after each token; name another one",
        )
    if not torch.isfinite(logits).all():
        raise CheckpointError(
            f"{loaded.checkpoint.where}: the model's own logits are NaN or infinite in {str(logits.dtype)[6:]},"
            " though all of its weights are finite",
            hint="load it in a dtype with a larger range: --dtype float32, or bfloat16",
        )


def check_heads(model: MTPForCausalLM, logits: Tensor, expected: Tensor) -> None:
    """Refuse a trunk whose structure was read wrongly: then a copy of the next-token head is not equal to it."""
    for k in range(1, model.num_heads + 1):
        found = logits[:, :, k - 1].to(expected.dtype)  # some trunks answer in fp32 whatever they compute in
        if found.shape != expected.shape or not torch.equal(found, expected):
            difference = _difference(found, expected)
            raise CheckpointError(
                f"{type(model.trunk).__name__}: head {k} differs from the model's own logits {difference}",
                hint=_hint_of(model, k),
            )


def _difference(found: Tensor, expected: Tensor) -> str:
    if found.shape != expected.shape:
        return f"in size: {found.shape[-1]} of them, and the model answers with {expected.shape[-1]}"
    return f"by up to {float((found - expected).abs().max()):.3g}"


def _hint_of(model: MTPForCausalLM, k: int) -> str:
    own = "write a class of your own (docs/extending.md)"
    if k > 1 and model.head_type == "transformer":
        return (
            f"a copy of its last layer, called beside it, does not answer the same: try '--head-type linear', or {own}"
        )
    return f"MTPForCausalLM does not fit this architecture: {own}"


def check_loads(directory: Path, destination: Path) -> None:
    """Refuse what was written where it would not load: from its headers, before it has its final name."""
    try:
        plan_load(directory, cache=False)
    except WmtpError as error:
        raise CheckpointError(
            f"{destination}: is not written, as it would not load: {error.problem}",
            hint="load the source with the transformers class that its config.json names, or write a class of your own"
            " (docs/extending.md)",
            faults=error.faults,
        ) from error
