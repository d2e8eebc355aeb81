"""Answers to a prompt by a model's next-token head; the one place that knows how tokens are generated."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor
from transformers import GenerationConfig, PreTrainedModel, StoppingCriteria, StoppingCriteriaList
from typing_extensions import override

from wmtp.models.causal import CausalModel
from wmtp.models.mtp import MTPForCausalLM


@dataclass(frozen=True)
class Sampling:
    """How answers are drawn.

    Attributes:
        temperature: Logits are divided by it; 0: the most probable token each time.
        max_new_tokens: Tokens of an answer at most.
        end: The token that ends an answer.
    """

    temperature: float
    max_new_tokens: int
    end: int


def sample(
    model: CausalModel, prompt: list[int], count: int, sampling: Sampling, is_finished: Callable[[list[int]], bool]
) -> list[list[int]]:
    """Return answers to one prompt, without the token that ends one.

    With a cache where the model, or its trunk, is one of transformers that generates; else every token is a pass over
    all before it.

    Args:
        model: From `causal_model`.
        prompt: Its tokens.
        count: How many answers are drawn at once.
        sampling: How.
        is_finished: Says of an answer, up to now, whether it needs no further token.
    """
    ids = torch.tensor([prompt], device=next(model.parameters()).device)
    trunk = model.trunk if isinstance(model, MTPForCausalLM) else model.module
    if isinstance(trunk, PreTrainedModel) and trunk.can_generate():
        rows = _with_cache(trunk, ids, count, sampling, is_finished)
    else:
        rows = _in_passes(model, ids, count, sampling, is_finished)
    answers = [row[len(prompt) :] for row in rows.tolist()]
    return [answer[: answer.index(sampling.end)] if sampling.end in answer else answer for answer in answers]


class _Finished(StoppingCriteria):
    def __init__(self, start: int, is_finished: Callable[[list[int]], bool]) -> None:
        self._start, self._is_finished = start, is_finished

    @override
    def __call__(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> Any:
        found = [self._is_finished(row[self._start :]) for row in input_ids.tolist()]
        return torch.tensor(found, device=input_ids.device)


def _with_cache(
    trunk: Any, ids: Int[Tensor, "one prompt"], count: int, sampling: Sampling, is_finished: Callable[[list[int]], bool]
) -> Int[Tensor, "count seq"]:
    is_drawn = sampling.temperature > 0
    # Nothing that a checkpoint wishes for its own decoding (penalties, top-p) may change what is measured.
    trunk.generation_config = GenerationConfig()
    chosen = GenerationConfig(
        max_new_tokens=sampling.max_new_tokens, do_sample=is_drawn, eos_token_id=sampling.end,
        pad_token_id=sampling.end, num_return_sequences=count if is_drawn else 1,
        **({"temperature": sampling.temperature, "top_k": 0, "top_p": 1.0} if is_drawn else {}),
    )  # fmt: skip
    stopping = StoppingCriteriaList([_Finished(ids.shape[1], is_finished)])
    found: Tensor = trunk.generate(
        ids, attention_mask=torch.ones_like(ids), generation_config=chosen, stopping_criteria=stopping
    )
    return found if is_drawn else found.expand(count, -1)


@torch.no_grad()
def _in_passes(
    model: CausalModel, ids: Tensor, count: int, sampling: Sampling, is_finished: Callable[[list[int]], bool]
) -> Int[Tensor, "count seq"]:
    rows, start = ids.expand(count, -1), ids.shape[1]
    is_done = torch.zeros(count, dtype=torch.bool, device=ids.device)
    for _ in range(sampling.max_new_tokens):
        logits = model(rows).logits[:, -1, 0].float()
        token = logits.argmax(-1) if sampling.temperature == 0 else _drawn(logits / sampling.temperature)
        rows = torch.cat([rows, token.masked_fill(is_done, sampling.end).unsqueeze(1)], dim=1)
        finished = [is_finished(row[start:]) for row in rows.tolist()]
        is_done |= (token == sampling.end) | torch.tensor(finished, device=ids.device)
        if is_done.all():
            break
    return rows


def _drawn(logits: Tensor) -> Tensor:
    return torch.multinomial(logits.softmax(-1), 1).squeeze(1)
