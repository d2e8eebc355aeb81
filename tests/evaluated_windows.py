"""Windows of random tokens to measure models on, and what plain loops over logits say of them."""

from __future__ import annotations

import math

import numpy as np
import torch

from wmtp.data.example import Example
from wmtp.data.rows import RowDataset
from wmtp.evaluation.results import Measured
from wmtp.evaluation.windows import Windows

LENGTHS = (9, 4, 12, 2, 7, 12)
_NUM_PROMPT = (0, 2, 5, 0, 3, 0)


def examples_of(vocab: int) -> list[Example]:
    """Documents of several lengths, some with a prompt, one shorter than heads reach."""
    generator = torch.Generator().manual_seed(0)
    drawn = [torch.randint(0, vocab, (length,), generator=generator, dtype=torch.int32) for length in LENGTHS]
    return [Example(ids, prompt) for ids, prompt in zip(drawn, _NUM_PROMPT, strict=True)]


def windows_of(examples: list[Example], *, packed: bool = False) -> Windows:
    """Each document a window and a unit of its own; packed, three share a row with padding behind them."""
    rows = [tuple(examples[i : i + 3]) for i in range(0, len(examples), 3)] if packed else [(e,) for e in examples]
    dataset = RowDataset(rows, 32 if packed else None)
    count = len(examples)
    measured = Measured(["made"], "", count, count, dataset.num_tokens, dataset.num_targets, 32, packed, "documents")
    return Windows(dataset, np.arange(count), np.ones(count), measured)


@torch.no_grad()
def looped(model: torch.nn.Module, examples: list[Example]) -> tuple[dict, list[list[int]]]:
    """Losses, firsts and targets by document and head; and by place how many drafts are accepted, document by document.

    Every document by itself, one place after another, from the logits that the model answers with.
    """
    found, accepted = {}, []
    for number, example in enumerate(examples):
        logits = model(example.input_ids.long().unsqueeze(0)).logits[0].double()  # seq, future, vocab
        num_heads, labels = logits.shape[1], example.labels.tolist()
        for k in range(1, num_heads + 1):
            places = [t for t in range(len(labels) - k) if labels[t + k] != -100]
            losses = [math.log(sum(math.exp(v) for v in logits[t, k - 1].tolist())) for t in places]
            losses = [total - float(logits[t, k - 1, labels[t + k]]) for total, t in zip(losses, places, strict=True)]
            ranks = [sorted(range(logits.shape[2]), key=lambda i: (-logits[t, k - 1, i], i)).index(labels[t + k])
                     for t in places]  # fmt: skip
            found[number, k] = (sum(losses), sum(r == 0 for r in ranks), sum(r < 5 for r in ranks), len(places))
        own = logits[:, 0].argmax(-1).tolist()
        counts = []
        for t in range(len(labels) - num_heads):
            if any(labels[t + k] == -100 for k in range(1, num_heads + 1)):
                continue
            count = 0
            while count < num_heads - 1 and int(logits[t, count + 1].argmax()) == own[t + count + 1]:
                count += 1
            counts.append(count)
        accepted.append(counts)
    return found, accepted
