"""Tiny models whose heads were taught what their trunk says, so that drafts are accepted, and some are not."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch

import wmtp
from native_models import native
from tiny_models import tiny_mtp, tokens

NEW_TOKENS = 12
_STEPS = 30
PARALLEL = ("llama-linear", "llama-transformer", "llama-resblock", "gpt2-transformer", "mistral-transformer")
# Two modules; a recurrent state; convolutions; the state before the norm; one module that runs three times.
NATIVE = ("deepseek", "qwen3_5", "mimo", "inkling", "mellum-3")
KINDS = (*PARALLEL, *NATIVE)


def prompts(count: int, seed: int = 0) -> list[list[int]]:
    """Random prompts of 1 to 12 tokens."""
    return [tokens(1 + place % 12, seed=1000 * seed + place).tolist() for place in range(count)]


def untaught(kind: str) -> Any:
    """A model with random weights."""
    name, _, what = kind.partition("-")
    if kind in PARALLEL:
        return tiny_mtp(name, 4, what)
    return native(name, recursion=int(what)) if what else native(name)


@cache
def taught(kind: str) -> Any:
    """A model whose heads alone were trained, for a few steps, on what its trunk says after some prompts."""
    model = untaught(kind)
    said = wmtp.generate(model, prompts(8), drafts=0, max_new_tokens=NEW_TOKENS, ignore_eos=True)
    rows = [[*row.prompt_tokens, *row.tokens][-NEW_TOKENS:] for row in said.rows]
    ids = torch.tensor(rows)
    learned = list(model.heads.parameters())
    optimizer = torch.optim.Adam(learned, lr=0.01)
    for _ in range(_STEPS):
        loss = model(ids, labels=ids).ce[:, :, 1:].mean()
        gradients = torch.autograd.grad(loss, learned, allow_unused=True)  # of the heads: the trunk stays
        for parameter, gradient in zip(learned, gradients, strict=True):
            parameter.grad = gradient
        optimizer.step()
    return model
