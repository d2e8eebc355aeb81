"""A tiny model that has learned by heart what to answer to a few prompts, and files of tasks with these."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch

from checkpoints import write_mtp_checkpoint
from tiny_models import tiny_mtp
from tiny_tokenizer import build_tokenizer

_MOST_STEPS = 500


def write_answering(directory: Path, answers: Mapping[str, str]) -> Path:
    """Write a model whose most probable text after each prompt is its answer; each ends with the end of a text."""
    tokenizer = build_tokenizer()
    model = tiny_mtp(heads=2, vocab_size=len(tokenizer), max_position_embeddings=256)
    whole = [tokenizer(prompt + answer)["input_ids"] + [0] for prompt, answer in answers.items()]
    longest = max(map(len, whole))
    ids = torch.tensor([each + [0] * (longest - len(each)) for each in whole])
    lengths = torch.tensor([len(each) for each in whole]).unsqueeze(1)
    mask = (torch.arange(longest) < lengths).long()
    labels = ids.masked_fill(mask == 0, -100)
    for row, prompt in zip(labels, answers, strict=True):
        row[: len(tokenizer(prompt)["input_ids"])] = -100
    optimizer = torch.optim.AdamW(model.trunk.parameters(), lr=5e-3)
    targets, is_known = labels[:, 1:], False
    for _ in range(_MOST_STEPS):
        found = model.trunk(ids, attention_mask=mask, labels=labels)
        is_known = bool(((found.logits[:, :-1].argmax(-1) == targets) | (targets == -100)).all())
        if is_known:
            break
        found.loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert is_known
    return write_mtp_checkpoint(directory, model, tokenizer)


def write_tasks(path: Path, *tasks: Mapping[str, object]) -> Path:
    """Write tasks, one a line."""
    path.write_text("".join(json.dumps(task) + "\n" for task in tasks))
    return path


def human_task(number: int, prompt: str, entry_point: str, check: str) -> dict[str, object]:
    """A task as HumanEval writes it; `check` is what its function asserts of `f`."""
    test = f"def check(f):\n    {check}\n"
    return {"task_id": f"Test/{number}", "prompt": prompt, "entry_point": entry_point, "test": test}
