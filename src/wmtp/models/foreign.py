"""Checkpoints' own modules behind the interface of `MTPForCausalLM`; which one fits a module, `adapter` decides.

One offers `forward_heads(input_ids, ...) -> (hidden, head_hidden)` with `unembedding(k)`, and never makes logits of a
whole batch. Another has a forward that returns `logits [batch, seq, future, vocab]`; `plain` has a third kind.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NoReturn, cast

import torch
import torch.nn.functional as F  # noqa: N812 - the name that everyone knows it by
from torch import Tensor, nn
from transformers import PretrainedConfig
from typing_extensions import override

from wmtp.errors import TrainingError
from wmtp.models.losses import CHUNK_ROWS, Backend
from wmtp.models.output import MTPOutput, Wanted
from wmtp.models.targets import IGNORE, Rows


class ForeignModel(nn.Module):
    """A checkpoint's own module behind the interface of `MTPForCausalLM`; made by `wmtp.models.adapter.trainable`.

    Attributes:
        module: The model as it was given; its state dict is what a checkpoint holds.
        loss_backend, loss_shares: How cross-entropy is computed; see `per_head_cross_entropy`.
        horizon: Heads that answer to labels; None: all.
    """

    loss_backend: Backend = "auto"
    loss_shares: tuple[float, ...] | None = None
    horizon: int | None = None

    def __init__(self, module: nn.Module, called: Callable[..., Any]) -> None:
        super().__init__()
        self.module = module
        parameters = inspect.signature(called).parameters
        self._named = set(parameters)
        self._takes_any = any(each.kind is inspect.Parameter.VAR_KEYWORD for each in parameters.values())

    @override
    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        labels: Tensor | None = None,
        document_ids: Tensor | None = None,
        with_top1: bool = False,
        with_ce: bool = True,
    ) -> MTPOutput:
        """Return what `MTPForCausalLM.forward` returns; raises TrainingError for an answer of another form."""
        rows = Rows.of(attention_mask, position_ids, document_ids)
        wanted = Wanted(with_top1, with_ce, shares=self.loss_shares)
        with caches_off(self.module):
            return self._answer(input_ids, self._arguments(rows), rows, labels, wanted)

    def leave_out_heads(self, horizon: int) -> None:
        """Train heads 1..horizon only; what those beyond cost is the class's own affair, but no loss is computed."""
        self.horizon = horizon

    def _answer(
        self, input_ids: Tensor, arguments: dict[str, Any], rows: Rows, labels: Tensor | None, wanted: Wanted
    ) -> MTPOutput:
        raise NotImplementedError  # nn.Module is no ABC; its subclasses answer

    def _arguments(self, rows: Rows) -> dict[str, Any]:
        # A **kwargs may drop what it is given, and then documents would see each other: only a name is believed.
        if rows.position_ids is not None and "position_ids" not in self._named:
            raise TrainingError(
                f"{type(self.module).__name__} has no argument position_ids, so packed documents would see each other",
                hint="add position_ids to its signature and use it, or set data.train.packing: false in the recipe, and"
                " data.validation.packing where that is given",
            )
        given = {"attention_mask": rows.attention_mask, "position_ids": rows.position_ids}
        return {
            name: value
            for name, value in given.items()
            if value is not None and (self._takes_any or name in self._named)
        }

    def activation_checkpointing_enable(
        self, activation_checkpointing_kwargs: dict[str, Any] | None = None, **options: Any
    ) -> None:
        """Pass on to the model, or raise TrainingError when it cannot."""
        enable = getattr(self.module, "activation_checkpointing_enable", None)
        if enable is None:
            raise TrainingError(
                f"{type(self.module).__name__} has no method activation_checkpointing_enable",
                hint="add it to the class, or leave activation checkpointing off in the recipe",
            )
        enable(activation_checkpointing_kwargs, **options)


class HeadsModel(ForeignModel):
    """A foreign model that offers `forward_heads` and `unembedding`."""

    @override
    def _answer(
        self, input_ids: Tensor, arguments: dict[str, Any], rows: Rows, labels: Tensor | None, wanted: Wanted
    ) -> MTPOutput:
        model = cast("Any", self.module)
        hidden, stacked = model.forward_heads(input_ids, **arguments)
        if not (isinstance(stacked, Tensor) and stacked.dim() == 4 and stacked.shape[:2] == input_ids.shape):
            _refuse_shape(model, "forward_heads", stacked, f"[{_sizes(input_ids)}, future, dim] as the second answer")
        if not (isinstance(hidden, Tensor) and hidden.is_floating_point() and hidden.shape[:-1] == input_ids.shape):
            _refuse_shape(model, "forward_heads", hidden, f"[{_sizes(input_ids)}, dim] as the first answer")
        head_hidden = list(stacked.unbind(dim=2))
        if labels is None:
            logits = [F.linear(each, *model.unembedding(k)) for k, each in enumerate(head_hidden, 1)]
            return MTPOutput(logits=torch.stack(logits, dim=2), hidden_states=hidden)
        head_hidden = head_hidden[: self.horizon]
        return MTPOutput.of_targets(
            head_hidden,
            model.unembedding,
            rows.targets(labels, len(head_hidden)),
            backend=self.loss_backend,
            wanted=wanted,
            hidden_states=hidden,
        )


class LogitsModel(ForeignModel):
    """A foreign model that returns the logits of every head, and takes the memory that they cost."""

    def makes_logits(self) -> bool:
        """Return whether losses are made from logits of a whole batch."""
        return True

    @override
    def _answer(
        self, input_ids: Tensor, arguments: dict[str, Any], rows: Rows, labels: Tensor | None, wanted: Wanted
    ) -> MTPOutput:
        logits = self._logits(self.module(input_ids, **arguments), input_ids)
        if labels is None:
            return MTPOutput(logits=logits)
        logits = logits[:, :, : self.horizon]
        targets = rows.targets(labels, logits.shape[2])
        return MTPOutput(
            ce=_cross_entropy_of_logits(logits, targets),
            valid=targets != IGNORE,
            top1=logits.argmax(dim=-1) == targets if wanted.top1 else None,
        )

    def _logits(self, output: Any, input_ids: Tensor) -> Tensor:
        logits = output.get("logits") if isinstance(output, Mapping) else getattr(output, "logits", output)
        if not isinstance(logits, Tensor):
            raise TrainingError(
                f"{type(self.module).__name__}.forward returned {type(output).__name__} without logits",
                hint="return logits [batch, seq, future, vocab], or a dict with them under 'logits'",
            )
        if logits.dim() == 3:
            logits = logits.unsqueeze(2)  # a plain next-token model: H = 1
        if logits.dim() != 4 or logits.shape[:2] != input_ids.shape:
            _refuse_shape(self.module, "forward", logits, f"[{_sizes(input_ids)}, future, vocab]")
        return logits


@contextmanager
def caches_off(model: nn.Module) -> Iterator[None]:
    """Keep transformers models inside a foreign one from making a cache, which would join packed documents."""
    found = (getattr(inner, "config", None) for inner in model.modules())
    configs = {id(each): each for each in found if isinstance(each, PretrainedConfig) and hasattr(each, "use_cache")}
    before = {key: config.use_cache for key, config in configs.items()}
    for config in configs.values():
        config.use_cache = False
    try:
        yield
    finally:
        for key, config in configs.items():
            config.use_cache = before[key]


def _cross_entropy_of_logits(logits: Tensor, targets: Tensor) -> Tensor:
    flat = zip(logits.flatten(0, 2).split(CHUNK_ROWS), targets.flatten().split(CHUNK_ROWS), strict=True)
    # In chunks, so that fp32 copies of bf16 logits exist for some rows at a time.
    ce = [F.cross_entropy(rows.float(), target, ignore_index=IGNORE, reduction="none") for rows, target in flat]
    return torch.cat(ce).view_as(targets)


def _sizes(input_ids: Tensor) -> str:
    return ", ".join(str(size) for size in input_ids.shape)


def _refuse_shape(model: nn.Module, method: str, found: Any, expected: str) -> NoReturn:
    what = f"{found.dtype} of shape {list(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
    raise TrainingError(
        f"{type(model).__name__}.{method} returned {what}, expected {expected}",
        hint="put the heads in the third dimension, head k = 1..H predicting token t + k at position t",
    )
