"""Rewards of whole documents by a model that answers a text with one figure, or with one for each label."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from wmtp.errors import IncompatibleModelError
from wmtp.scoring.labels import check_label

logger = logging.getLogger("wmtp")

_TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-4}
_COARSE = 2e-2


class Rewards:
    """Answers texts with their rewards, none of which depends on what else is in the batch.

    Texts share a batch only where that is shown to change nothing: classes find the end of a text in ways of their own,
    by the id of padding, by the mask, or not at all.

    Args:
        model: The reward model, on its device.
        where: Its address, for messages.
        label: Which of its labels is the reward; None where it must have one.
        device: Its device.
    """

    def __init__(self, model: nn.Module, where: str, label: int | None, device: str) -> None:
        self._model, self._where, self._label = model.eval().requires_grad_(False), where, label
        self._device = torch.device(device)
        self._padding = _padding_id(model)
        self._takes_mask = "attention_mask" in inspect.signature(model.forward).parameters
        self._shares_batches: bool | None = None if self._padding is not None else False
        self._is_of_texts = False

    def __call__(self, texts: Sequence[Int[Tensor, "tokens"]]) -> list[Float[Tensor, ""]]:
        """Return the reward of each text, fp32 on the CPU.

        Raises:
            IncompatibleModelError: If the model does not answer with one figure for each label of a text.
        """
        if not self._is_of_texts:
            self._refuse_figures_of_tokens(min(texts, key=len))
            self._is_of_texts = True
        if self._shares_batches is None and len({len(text) for text in texts}) > 1:
            self._shares_batches = self._padding_is_harmless(texts)
        if self._shares_batches:
            return list(self._rewards(texts))
        return [self._rewards([text])[0] for text in texts]

    def _refuse_figures_of_tokens(self, text: Tensor) -> None:
        """Compare how many figures two texts get that differ in their length alone."""
        other = text[:-1] if len(text) > 1 else text.repeat(2)
        found = [self._labels(self._answer([each]), 1).shape[1] for each in (text, other)]
        if found[0] != found[1]:
            raise IncompatibleModelError(
                f"{self._where}: {type(self._model).__name__}.forward returns {found[0]} figures for a text of"
                f" {len(text)} tokens and {found[1]} for one of {len(other)}: for its tokens, and not for labels",
                hint="name a model that answers a text with one figure for each label; which token's figure would be"
                " the reward, no reward_index can say",
            )

    def _padding_is_harmless(self, texts: Sequence[Tensor]) -> bool:
        """Compare the shortest text alone with the same beside the longest."""
        shortest, longest = min(texts, key=len), max(texts, key=len)
        alone, beside = self._rewards([shortest])[0], self._rewards([shortest, longest])[0]
        tolerance = _TOLERANCE.get(next(self._model.parameters()).dtype, _COARSE)
        is_harmless = torch.allclose(alone, beside, rtol=tolerance, atol=tolerance)
        if not is_harmless:
            logger.warning("%s: padding changes its rewards, so texts are scored one by one", self._where)
        return is_harmless

    def _rewards(self, texts: Sequence[Tensor]) -> Float[Tensor, "texts"]:
        labels = self._labels(self._answer(texts), len(texts))
        check_label(self._where, labels.shape[1], self._label)
        return labels[:, self._label or 0].float().cpu()

    @torch.no_grad()
    def _answer(self, texts: Sequence[Tensor]) -> Any:
        longest = max(len(text) for text in texts)
        filler = self._padding or 0
        padded = [nn.functional.pad(text.long(), (0, longest - len(text)), value=filler) for text in texts]
        arguments = {"input_ids": torch.stack(padded).to(self._device)}
        if self._takes_mask:
            lengths = torch.tensor([len(text) for text in texts]).unsqueeze(1)
            arguments["attention_mask"] = (torch.arange(longest) < lengths).long().to(self._device)
        return self._model(**arguments)

    def _labels(self, output: Any, count: int) -> Float[Tensor, "texts labels"]:
        answer = output.get("logits") if isinstance(output, Mapping) else getattr(output, "logits", output)
        if not isinstance(answer, Tensor) or answer.dim() not in (1, 2) or len(answer) != count:
            found = f"shape {list(answer.shape)}" if isinstance(answer, Tensor) else type(output).__name__
            raise IncompatibleModelError(
                f"{self._where}: {type(self._model).__name__}.forward returned {found} for {count} text(s), expected"
                " one figure for each label of a text",
                hint="name a reward model, such as one of the class AutoModelForSequenceClassification with one label",
            )
        return answer.unsqueeze(1) if answer.dim() == 1 else answer


def _padding_id(model: nn.Module) -> int | None:
    config: Any = getattr(model, "config", None)
    text_config = config.get_text_config() if hasattr(config, "get_text_config") else config
    found = getattr(text_config, "pad_token_id", None)
    return found if isinstance(found, int) and found >= 0 else None
