"""What models are asked to go on with: pieces of what they learned."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from prediction import play_rounds
from small_models import training_text
from torch import nn

import wmtp

NUM_PROMPTS = 12
_PER_BATCH = 24
_LENGTHS = tuple(4 + 2 * n for n in range(NUM_PROMPTS))  # tokens


def read_prompts(model: Path) -> list[list[int]]:
    """Return prompts of 4 to 26 tokens, from all over the text."""
    tokenizer, text = wmtp.load(model).tokenizer, training_text()
    starts = range(0, len(text), len(text) // NUM_PROMPTS)
    return [
        tokenizer(text[start : start + 200]).input_ids[:length] for start, length in zip(starts, _LENGTHS, strict=False)
    ]


def decided_prompts(path: Path, dtype: str, min_margin: float, num_new_tokens: int) -> list[list[int]]:
    """Return prompts of the same lengths after which a model is nowhere in doubt.

    Where a dtype rounds as coarsely as bfloat16, two right programs choose differently between tokens that are nearly
    as good. So prompts are taken after which the best token leads at every place that is looked at: of the next
    tokens, and of the drafts of each round.

    Args:
        path: The checkpoint.
        dtype: In which it computes.
        min_margin: By how much the best token's logit has to be above the second's.
        num_new_tokens: Looked at after each prompt.
    """
    loaded = wmtp.load(path, dtype=dtype)
    loaded.model.trunk.generation_config.eos_token_id = None  # all of the tokens, as a server is asked for
    tokens = loaded.tokenizer(training_text()).input_ids
    return [_decided(loaded.model, tokens, length, min_margin, num_new_tokens) for length in _LENGTHS]


def _decided(model: nn.Module, tokens: Sequence[int], length: int, min_margin: float, num_new_tokens: int) -> list[int]:
    for batch in _batches(tokens, length):
        whole = model.trunk.generate(torch.tensor(batch), max_new_tokens=num_new_tokens, do_sample=False)
        for prompt, line in zip(batch, whole, strict=True):
            if _least_margin(model, line, length) >= min_margin:
                return prompt
    raise SystemExit(f"no prompt of {length} tokens leaves the model without a doubt; train it longer")


def _batches(tokens: Sequence[int], length: int) -> Iterator[list[list[int]]]:
    starts = range(0, len(tokens) - length, 13)
    pieces = [list(tokens[start : start + length]) for start in starts]
    for start in range(0, len(pieces), _PER_BATCH):
        yield pieces[start : start + _PER_BATCH]


@torch.no_grad()
def _least_margin(model: nn.Module, line: torch.Tensor, length: int) -> float:
    logits = model(line[None]).logits[0, :, :2].float()  # seq future vocab
    best = logits.topk(2, dim=-1)
    margins = best.values[..., 0] - best.values[..., 1]  # seq future
    drafts = best.indices[:, 1, :1].tolist()
    begins = play_rounds(lambda position: drafts[position], line.tolist(), length, len(line) - length - 1)
    return float(torch.cat([margins[length - 1 : -1, 0], margins[list(begins), 1]]).min())
