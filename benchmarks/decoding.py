"""How much faster a model decodes with drafts by its own heads: tokens a forward pass, and time.

    make bench-decoding MODEL=DIR                    # a checkpoint with heads, as `wmtp generate` takes it
    python benchmarks/decoding.py DIR --runs 7 --new-tokens 256 --prompts prompts.jsonl

Three arms say the same tokens: wmtp with drafts, wmtp without, and transformers' `generate` of the trunk, all greedy,
with a cache, one row at a time. After a warm-up each run does all prompts in all arms, beginning with another arm each
time, so that what slows the machine slows them alike. Without --prompts the prompts are pieces of Python's standard
library. Prints markdown. Text that repeats itself drafts well: the share of repeated runs of 8 tokens stands beside it.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers

import wmtp
from wmtp.demo.zoo import stdlib_sources
from wmtp.generation.prompts import encoded, read_prompts
from wmtp.generation.result import Generation, repeated_share
from wmtp.loaders.base import LoadResult

LEAST_RUNS = 5
_PASSES = 15
DRAFTS, PLAIN, PEER = "wmtp, drafts", "wmtp, plain", "transformers `generate`"
Rows = list[list[int]]


@dataclass
class Arm:
    """A way of decoding.

    Attributes:
        decode: Says new tokens for every prompt.
        seconds: Of each run.
        rows: New tokens of the last run.
    """

    decode: Callable[[], Rows]
    seconds: list[float] = field(default_factory=list)
    rows: Rows = field(default_factory=list)

    def run(self) -> None:
        """Decode all prompts once, and time it."""
        started = time.perf_counter()
        self.rows = self.decode()
        self.seconds.append(time.perf_counter() - started)

    @property
    def tokens_per_second(self) -> float:
        """New tokens of the last run a second of the middle one."""
        return sum(map(len, self.rows)) / statistics.median(self.seconds)


class Ours:
    """wmtp, with a number of drafts; keeps what it said last."""

    def __init__(self, loaded: LoadResult, prompts: Rows, new_tokens: int, drafts: int | None) -> None:
        self.loaded, self.prompts = loaded, prompts
        self.options: Any = {"max_new_tokens": new_tokens, "drafts": drafts, "ignore_eos": True}
        self.last: Generation | None = None

    def __call__(self) -> Rows:
        """Return new tokens for every prompt."""
        self.last = wmtp.generate(self.loaded, self.prompts, **self.options)
        return [list(row.tokens) for row in self.last.rows]


def by_transformers(model: Any, prompts: Rows, new_tokens: int) -> Rows:
    """Return what `generate` of the trunk says."""
    trunk = getattr(model, "trunk", model)
    found = []
    for prompt in prompts:
        ids = torch.tensor([prompt], device=trunk.device)
        options = {"max_new_tokens": new_tokens, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
        said = trunk.generate(ids, attention_mask=torch.ones_like(ids), **options)
        found.append(said[0, len(prompt) :].tolist())
    return found


def pieces_of_code(tokenizer: Any, count: int, length: int) -> Rows:
    """Return prompts of so many tokens, from files of Python's standard library all over the alphabet."""
    files = stdlib_sources()
    chosen = [files[place * len(files) // count] for place in range(count)]
    texts = [path.read_text(encoding="utf-8", errors="replace") for path in chosen]
    return [
        tokenizer(text[len(text) // 3 :][: 20 * length], add_special_tokens=False)["input_ids"][:length]
        for text in texts
    ]


def measure(arms: dict[str, Arm], runs: int) -> None:
    """Run all arms in turn, after a warm-up that is not counted."""
    names = list(arms)
    for arm in arms.values():
        arm.run()
        arm.seconds.clear()
    for run in range(runs):
        for place in range(len(names)):
            arms[names[(run + place) % len(names)]].run()
        print(f"run {run + 1} of {runs}", file=sys.stderr)


def table(arms: dict[str, Arm], drafted: Generation) -> list[str]:
    """Return the lines of a table; the speed-up is of each run by itself, with the smallest and the largest."""
    lines = [
        "| arm | tokens a forward | tokens a second | times plain (least to most) | repeated 8-grams | same rows |",
        "|---|---|---|---|---|---|",
    ]
    for name, arm in arms.items():
        ratios = [plain / own for plain, own in zip(arms[PLAIN].seconds, arm.seconds, strict=True)]
        per_pass = drafted.tokens_per_forward if name == DRAFTS else 1.0
        same = sum(ours == plain for ours, plain in zip(arm.rows, arms[PLAIN].rows, strict=True))
        spread = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        lines.append(
            f"| {name} | {per_pass:.2f} | {arm.tokens_per_second:.1f} | {spread} | {repeated_share(arm.rows):.0%}"
            f" | {same} of {len(arm.rows)} |"
        )
    return lines


def cost_of_tokens(trunk: Any, most: int) -> str:
    """Return what a pass of the trunk over so many tokens takes, of one over a single token; both go on from 64."""
    prefix = torch.arange(64, device=trunk.device).unsqueeze(0) % trunk.config.vocab_size
    seconds: dict[int, list[float]] = {count: [] for count in range(1, most + 1)}
    for run in range(1 + _PASSES):
        for count, found in seconds.items():
            cache = trunk(prefix, use_cache=True).past_key_values
            started = time.perf_counter()
            trunk(prefix[:, :count], past_key_values=cache, use_cache=True)
            if run:
                found.append(time.perf_counter() - started)
    medians = [statistics.median(found) for found in seconds.values()]
    ratios = ", ".join(f"{each / medians[0]:.2f}" for each in medians)
    return f"a pass over 1 to {most} tokens takes the trunk {ratios} times as long as one over a single token"


def versions() -> str:
    """Return what it was measured with."""
    cpu = f"{os.cpu_count()} cores, {torch.get_num_threads()} threads, {platform.machine()}"
    return f"wmtp {wmtp.__version__}, torch {torch.__version__}, transformers {transformers.__version__}; {cpu}"


def main(argv: Sequence[str] | None = None) -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a checkpoint")
    parser.add_argument("--prompts", type=Path, metavar="FILE", help="JSONL, as for `wmtp generate`")
    parser.add_argument("--count", type=int, default=8, help="without --prompts: how many (8)")
    parser.add_argument("--prompt-tokens", type=int, default=48, help="without --prompts: of each (48)")
    parser.add_argument("--new-tokens", type=int, default=128, help="for each prompt (128)")
    parser.add_argument("--drafts", type=int, help="a round at most; one for each further head")
    parser.add_argument("--runs", type=int, default=LEAST_RUNS, help=f"at least {LEAST_RUNS} ({LEAST_RUNS})")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--device", default="cpu")
    given = parser.parse_args(argv)
    loaded = wmtp.load(given.model, dtype=given.dtype, device=given.device)
    if given.prompts is None:
        prompts = pieces_of_code(loaded.tokenizer, given.count, given.prompt_tokens)
    else:
        prompts = [list(each.tokens) for each in encoded(read_prompts(given.prompts), loaded.tokenizer, chat=False)]
    drafting = Ours(loaded, prompts, given.new_tokens, given.drafts)
    arms = {
        DRAFTS: Arm(drafting),
        PLAIN: Arm(Ours(loaded, prompts, given.new_tokens, 0)),
        PEER: Arm(lambda: by_transformers(loaded.model, prompts, given.new_tokens)),
    }
    measure(arms, max(LEAST_RUNS, given.runs))
    assert drafting.last is not None
    print(
        f"{given.model}, {given.dtype} on {given.device}, {len(prompts)} prompts, {given.new_tokens} new tokens each,"
    )
    print(f"{max(LEAST_RUNS, given.runs)} runs; {versions()}\n")
    print("\n".join([*table(arms, drafting.last), ""]))
    lines = list(drafting.last.summary())
    trunk = getattr(loaded.model, "trunk", loaded.model)
    with torch.inference_mode():
        lines.append(cost_of_tokens(trunk, 1 + len(drafting.last.counts.drafted)))
    print("\n".join(f"- {line}" for line in lines))


if __name__ == "__main__":
    main()
