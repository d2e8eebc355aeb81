"""Greedy completion with the next-token head, for showing that a model has learned something."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - the name that everyone knows it by
from torch import nn

_MAX_CONTEXT = 128


@torch.no_grad()
def complete_line(model: nn.Module, tokenizer: Any, text: str, *, max_new_tokens: int = 40) -> str:
    """Return the text with the most probable next tokens behind it, up to the end of the line.

    Args:
        model: A model that offers `forward_heads` and `unembedding`.
        tokenizer: Its tokenizer.
        text: What to complete.
        max_new_tokens: Stop after so many tokens if the line does not end.
    """
    heads: Any = model
    ids = tokenizer(text, return_tensors="pt")["input_ids"]
    start = ids.shape[1]
    for _ in range(max_new_tokens):
        _, hidden = heads.forward_heads(ids[:, -_MAX_CONTEXT:])
        token = F.linear(hidden[:, -1, 0], *heads.unembedding(1)).argmax(-1, keepdim=True)
        ids = torch.cat([ids, token], dim=1)
        if token.item() == tokenizer.eos_token_id or "\n" in tokenizer.decode(ids[0, start:]):
            break
    return text + tokenizer.decode(ids[0, start:], skip_special_tokens=True).split("\n")[0].rstrip()
