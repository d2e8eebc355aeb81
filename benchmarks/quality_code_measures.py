"""What an arm has learned: loss of right answers, right ones against wrong ones, and greedy answers that pass tests."""

from __future__ import annotations

import re
from itertools import product
from pathlib import Path
from typing import Any

import torch
from quality_code_data import HELD_OUT, TASKS, read_lines
from transformers import AutoModelForCausalLM, AutoTokenizer

from wmtp.data.documents import Document
from wmtp.data.rows import build_rows
from wmtp.evaluation import read_tasks, run_tests
from wmtp.models.causal import causal_model
from wmtp.scoring.nll import token_losses
from wmtp.settings.data import DataSource

_BATCH = 8
_NEW_TOKENS = 96
# What can stand at the begin of a line of a program with functions; anything else there is no longer the answer.
_GOES_ON = re.compile(r"\s|def |class |import |from |@|#|$")


@torch.no_grad()
def measure_losses(checkpoint: str, data: Path) -> dict[str, Any]:
    """Return the loss of held-out right answers, and how often one is more probable than a wrong one to its task.

    - `loss`: nats a token of answers that pass all tests, prompts left out
    - `right_over_wrong`: share of all pairs of a passing and a failing answer to one task in which the passing one has
      the higher probability
    - `pairs`: how many

    Args:
        checkpoint: A plain transformers checkpoint.
        data: From `write_data`.
    """
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    model = causal_model(AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32))
    lines, sums = read_lines(data / HELD_OUT), list[float]()
    documents = [Document(line["code"], prompt=line["text"]) for line in lines]
    source = DataSource(files=["unused"], max_length=512, packing=False)
    examples = list(build_rows(documents, tokenizer, source, name="held_out").examples)
    for start in range(0, len(examples), _BATCH):
        batch = examples[start : start + _BATCH]
        losses = token_losses(model, [example.input_ids for example in batch], torch.device("cpu"))
        sums += [float(each[example.num_prompt_tokens :].sum()) for each, example in zip(losses, batch, strict=True)]
    right = [place for place, line in enumerate(lines) if line["reward"] == 1]
    tokens = sum(examples[place].num_targets for place in right)
    pairs = [
        sums[a] < sums[b]
        for a, b in product(right, range(len(lines)))
        if lines[b]["reward"] < 1 and lines[a]["task_id"] == lines[b]["task_id"]
    ]
    loss = sum(sums[place] for place in right) / tokens
    return {"loss": loss, "tokens": tokens, "right_over_wrong": sum(pairs) / len(pairs), "pairs": len(pairs)}


@torch.no_grad()
def measure_samples(checkpoint: str, data: Path, count: int) -> dict[str, Any]:
    """Return how many greedy answers to held-out tasks pass all tests, and the mean share of tests that they pass.

    Args:
        checkpoint: A plain transformers checkpoint.
        data: From `write_data`.
        count: Tasks to answer, one answer each.
    """
    tasks = list(read_tasks(data / TASKS).values())[:count]
    tokenizer = AutoTokenizer.from_pretrained(checkpoint, padding_side="left")
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32).eval()
    given = tokenizer([task.prompt for task in tasks], return_tensors="pt", padding=True)
    ids = model.generate(
        **given,
        do_sample=False,
        max_new_tokens=_NEW_TOKENS,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    answers = tokenizer.batch_decode(ids[:, given["input_ids"].shape[1] :], skip_special_tokens=True)
    programs = [task.program(answer_of(text)) for task, text in zip(tasks, answers, strict=True)]
    outcomes = run_tests(programs, allow_code_execution=True)
    passed = sum(outcome.status == "passed" for outcome in outcomes)
    share = sum(outcome.share for outcome in outcomes) / len(outcomes)
    return {"samples": len(tasks), "samples_passed": passed, "share_of_tests": share, "answers": answers}


def answer_of(text: str) -> str:
    """Return the program that a text begins with: up to the first line that cannot be one of a module of functions."""
    lines = text.split("\n")
    end = next((place for place, line in enumerate(lines) if not _GOES_ON.match(line)), len(lines))
    return "\n".join(lines[:end])
