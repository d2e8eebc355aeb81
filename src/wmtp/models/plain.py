"""A plain causal LM of transformers, trained on its next-token losses without logits of a whole batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
import torch.nn.functional as F  # noqa: N812 - the name that everyone knows it by
from torch import Tensor
from transformers import PreTrainedModel
from typing_extensions import override

from wmtp.errors import CheckpointError
from wmtp.models.foreign import LogitsModel, caches_off
from wmtp.models.logits import LogitChange, declared_change
from wmtp.models.output import MTPOutput, Wanted
from wmtp.models.parts import find_parts, refuse_trunk
from wmtp.models.targets import Rows

_PROBE_TOKENS = 8
_ROUNDING = 8  # times the precision of the dtype, of the largest logit


class PlainModel(LogitsModel):
    """A causal LM whose unembedding is applied to what its body answers, where that is shown to give its logits.

    It is asked before the first loss, with eight tokens. One that does something else to its logits answers with those
    of the whole batch, as every `LogitsModel` does. So does one that sees or hears too, as it may read tokens that
    stand for images in a way of its own, and a class that is not one of transformers: nobody could see what it does
    while it is trained.

    Args:
        module: The causal LM.

    Raises:
        CheckpointError: If it is another class, reads more than text, has no such parts, or its configuration changes
            logits in a way that nobody knows.
    """

    module: PreTrainedModel

    def __init__(self, module: PreTrainedModel) -> None:
        super().__init__(module, module.forward)
        if not type(module).__module__.startswith("transformers."):
            refuse_trunk(module, "it is a class of its own, which may do anything between the two")
        if module.config.get_text_config(decoder=True) is not module.config:
            refuse_trunk(module, "it is more than a text model")
        self._body = find_parts(module, with_layers=False).body
        self._change = declared_change(module.config)
        self._agrees: bool | None = None

    @override
    def makes_logits(self) -> bool:
        return not self._asked(next(self.module.parameters()).device)

    @override
    def _answer(
        self, input_ids: Tensor, arguments: dict[str, Any], rows: Rows, labels: Tensor | None, wanted: Wanted
    ) -> MTPOutput:
        if labels is None or not self._asked(input_ids.device):
            return super()._answer(input_ids, arguments, rows, labels, wanted)
        return MTPOutput.of_targets(
            [self._change.of_hidden(self._hidden(input_ids, arguments))],
            lambda _: self._unembedding(),
            rows.targets(labels, 1),
            backend=self.loss_backend,
            wanted=wanted._replace(change=self._change),
        )

    def _hidden(self, input_ids: Tensor, arguments: dict[str, Any]) -> Tensor:
        body = cast("Callable[..., Any]", self.module.get_submodule(self._body))
        return cast("Tensor", body(input_ids=input_ids, **arguments).last_hidden_state)

    def _unembedding(self) -> tuple[Tensor, Tensor | None]:
        module: Any = self.module.get_output_embeddings()
        return module.weight, getattr(module, "bias", None)

    def _asked(self, device: torch.device) -> bool:
        """Return whether body and unembedding give the model's logits; the model is asked once."""
        if self._agrees is None:
            modes = [(each, each.training) for each in self.module.modules()]
            self.module.eval()  # dropout would differ between the two
            tokens = torch.arange(_PROBE_TOKENS, device=device) % len(self._unembedding()[0])
            try:
                with torch.no_grad(), caches_off(self.module):
                    self._agrees = self._compared(tokens.unsqueeze(0))
            finally:
                for each, mode in modes:
                    each.training = mode
        return self._agrees

    def _compared(self, tokens: Tensor) -> bool:
        # Of two documents where the model can be told, so that this has to arrive in its body too.
        places = torch.arange(_PROBE_TOKENS, device=tokens.device).unsqueeze(0) % (_PROBE_TOKENS // 2)
        arguments = self._arguments(Rows.of(None, places if "position_ids" in self._named else None, None))
        expected, head = self._logits(self.module(tokens, **arguments), tokens).squeeze(2), self._unembedding()
        try:
            hidden = self._hidden(tokens, arguments)
        except (TypeError, AttributeError):  # another signature, or an answer of another form
            return False
        if hidden.shape[-1] != head[0].shape[1] or expected.shape != (*tokens.shape, head[0].shape[0]):
            return False  # there is a projection between the two, or some logits are left out

        def answer(change: LogitChange) -> Tensor:
            return change(F.linear(change.of_hidden(hidden), *head))

        if self._change.factor != 1:
            self._change = self._change.as_seen(answer, expected)
        # As near as rounding: an unknown cap changes small logits little.
        largest, rounding = float(expected.abs().max()), _ROUNDING * torch.finfo(expected.dtype).eps
        return torch.allclose(answer(self._change).to(expected.dtype), expected, rtol=0, atol=rounding * largest)


def plain_model(module: PreTrainedModel) -> LogitsModel:
    """Return a causal LM behind the interface of `MTPForCausalLM`, as `PlainModel` where it has its parts."""
    try:
        return PlainModel(module)
    except CheckpointError:
        return LogitsModel(module, module.forward)
