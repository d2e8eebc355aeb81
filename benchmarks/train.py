"""Training speed and memory: one optimizer step of wmtp, of transformers' Trainer, and of TRL's SFTTrainer.

    python benchmarks/train.py              # half an hour, 6 GB of memory, prints markdown
    python benchmarks/train.py --rounds 3
    python benchmarks/train.py --quick      # a small shape, to see that it runs

One model (the shape of SmolLM2-135M, random weights), the same rows of token ids, the same batch, AdamW, fp32. Peers
are measured in turn, each time in a fresh process: steps that warm up, then steps that count. Ratios are those of one
round, whose peers ran one after the other; the table has the median of the rounds. Rows are full, so nobody pads; each
is one document, but for the peer that is called packed, whose rows hold four that must not see each other. Peak memory
is the largest resident set of these processes.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from typing import Any

import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainerCallback, TrainingArguments, set_seed
from typing_extensions import override

from wmtp.algorithms.baseline_mtp import BaselineMTP
from wmtp.algorithms.weighting import head_prior
from wmtp.data.example import Example
from wmtp.data.rows import RowDataset
from wmtp.models.adapter import trainable
from wmtp.models.mtp import MTPForCausalLM
from wmtp.training.trainer import WMTPTrainer

HEADS = 4
LEAST_SPEED, MOST_TIME = 0.97, 1.6  # of the faster peer, with one head; of one head, with four
_PACKED = 4


@dataclass(frozen=True)
class Size:
    """What is trained: a llama, and rows of so many tokens."""

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    vocab_size: int
    row_tokens: int
    batch_rows: int
    warm_up: int
    steps: int
    rounds: int


FULL = Size(576, 1536, 30, 9, 3, 49152, row_tokens=512, batch_rows=2, warm_up=2, steps=3, rounds=5)
QUICK = Size(64, 128, 2, 4, 2, 512, row_tokens=64, batch_rows=2, warm_up=1, steps=2, rounds=2)


class Clock(TrainerCallback):
    """Seconds of each optimizer step: from the begin of its first forward pass to the end of its update."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self._began = 0.0

    @override
    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._began = time.perf_counter()

    @override
    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.seconds.append(time.perf_counter() - self._began)


def _config(size: Size, **more: Any) -> LlamaConfig:
    shape = {name: value for name, value in asdict(size).items() if name in LlamaConfig().to_dict()}
    return LlamaConfig(**shape, max_position_embeddings=2048, tie_word_embeddings=True, **more)


def _rows(size: Size) -> torch.Tensor:
    count = size.batch_rows * (size.warm_up + size.steps)
    return torch.randint(0, size.vocab_size, (count, size.row_tokens), generator=torch.Generator().manual_seed(0))


def _arguments(size: Size, directory: str) -> dict[str, Any]:
    return {
        "output_dir": directory,
        "use_cpu": True,
        "max_steps": size.warm_up + size.steps,
        "per_device_train_batch_size": size.batch_rows,
        "learning_rate": 1e-4,
        "save_strategy": "no",
        "report_to": [],
        "disable_tqdm": True,
        "logging_steps": 1000,
        "bf16": False,
        "gradient_checkpointing": False,
    }


def plain(size: Size, directory: str, clock: Clock) -> Trainer:
    """The Trainer of transformers, as most fine-tuning scripts use it."""
    rows = [{"input_ids": row, "labels": row.clone()} for row in _rows(size)]
    arguments = TrainingArguments(**_arguments(size, directory))
    model = LlamaForCausalLM(_config(size))
    return Trainer(model=model, args=arguments, train_dataset=rows, callbacks=[clock])


def sft(size: Size, directory: str, clock: Clock) -> Trainer:
    """TRL's SFTTrainer, on rows that are tokenised and packed already; its metrics are those that it has by default."""
    from datasets import Dataset
    from transformers import PreTrainedTokenizerFast
    from trl import SFTConfig, SFTTrainer

    config = SFTConfig(**_arguments(size, directory), dataset_kwargs={"skip_prepare_dataset": True})
    return SFTTrainer(
        model=LlamaForCausalLM(_config(size)),
        args=config,
        train_dataset=Dataset.from_dict({"input_ids": _rows(size).tolist()}),
        processing_class=PreTrainedTokenizerFast(tokenizer_object=_no_tokenizer(), eos_token="<e>", pad_token="<e>"),
        callbacks=[clock],
    )


def _no_tokenizer() -> Any:
    from tokenizers import Tokenizer, models

    return Tokenizer(models.WordLevel({"<e>": 0}, unk_token="<e>"))


def ours(
    size: Size, directory: str, clock: Clock, *, heads: int = 1, kind: str = "linear", packed: int = 1, **of_heads: Any
) -> Trainer:
    """The trainer of `wmtp train`, without what surrounds the steps; without `kind` the model has no heads."""
    length = size.row_tokens // packed
    documents = [tuple(Example(piece) for piece in row.int().split(length)) for row in _rows(size)]
    rows = RowDataset(documents, size.row_tokens if packed > 1 else None)
    model: nn.Module = trainable(LlamaForCausalLM(_config(size)))
    if kind:
        model = MTPForCausalLM(_config(size, mtp_config={"n_future_tokens": heads, "head_type": kind, **of_heads}))
    trainer = WMTPTrainer(
        model=model,
        args=TrainingArguments(**_arguments(size, directory), remove_unused_columns=False),
        train_dataset=rows,
        data_collator=rows.collate,
        algorithm=BaselineMTP(),
        head_prior=head_prior("uniform", heads),
        save=_save_nothing,
    )
    trainer.add_callback(clock)
    return trainer


def _save_nothing(*_: object) -> None:
    """Keep no checkpoint."""


def _headed(kind: str, **of_heads: Any) -> Callable[[Size, str, Clock], Trainer]:
    return lambda size, directory, clock: ours(size, directory, clock, heads=HEADS, kind=kind, **of_heads)


PEERS: dict[str, Callable[[Size, str, Clock], Trainer]] = {
    "transformers Trainer": plain,
    "TRL SFTTrainer": sft,
    "wmtp, plain model": lambda size, directory, clock: ours(size, directory, clock, kind=""),
    "wmtp, 1 head": ours,
    "wmtp, 1 head, packed": lambda size, directory, clock: ours(size, directory, clock, packed=_PACKED),
    f"wmtp, {HEADS} heads, transformer": _headed("transformer"),
    f"wmtp, {HEADS} heads, resblock, one unembedding": _headed("resblock", shared_unembedding=True),
    f"wmtp, {HEADS} heads, resblock": _headed("resblock"),
    f"wmtp, {HEADS} heads, linear": _headed("linear"),
}


def measure(peer: str, size: Size) -> dict[str, Any]:
    """Train with one peer in this process; seconds of the steps that count, and the peak of resident memory in GB."""
    set_seed(0)
    clock = Clock()
    with tempfile.TemporaryDirectory() as directory:
        trainer = PEERS[peer](size, directory, clock)
        parameters = sum(each.numel() for each in trainer.model.parameters())
        trainer.train()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    return {"seconds": clock.seconds[size.warm_up :], "peak": peak, "parameters": parameters}


def _in_own_process(peer: str, *, quick: bool) -> dict[str, Any]:
    words = [sys.executable, __file__, "--peer", peer, *(["--quick"] if quick else [])]
    answer = subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True).stdout
    found: dict[str, Any] = json.loads(answer.splitlines()[-1])
    return found


def main() -> None:
    """Measure in turn, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--rounds", type=int, help=f"how often each peer is measured; {FULL.rounds}")
    parser.add_argument("--peer", choices=PEERS)
    options = parser.parse_args()
    size = QUICK if options.quick else FULL
    if options.peer:
        print(json.dumps(measure(options.peer, size)))
        return
    size = replace(size, rounds=options.rounds or size.rounds)
    found: dict[str, list[dict[str, Any]]] = {peer: [] for peer in PEERS}
    for number in range(size.rounds):
        for peer, measured in found.items():
            measured.append(_in_own_process(peer, quick=options.quick))
            print(f"round {number + 1}: {peer}: {json.dumps(measured[-1])}", file=sys.stderr)
    _print_table(found, size)


def _print_table(found: dict[str, list[dict[str, Any]]], size: Size) -> None:
    packages = ("wmtp", "torch", "transformers", "trl", "accelerate")
    names = ", ".join(f"{name} {version(name)}" for name in packages)
    print(f"{names}, Python {platform.python_version()}, {os.cpu_count()} x {platform.processor() or 'CPU'}\n")
    tokens = size.batch_rows * size.row_tokens
    print(f"{tokens} tokens a step, fp32; {size.rounds} rounds of {size.steps} steps\n")
    print("| peer | parameters, M | tokens/s, median | spread | speed, of the faster | time, of 1 head | peak, GB |")
    print("|---|---|---|---|---|---|---|")
    medians = {peer: [statistics.median(each["seconds"]) for each in measured] for peer, measured in found.items()}
    faster = min("transformers Trainer", "TRL SFTTrainer", key=lambda peer: statistics.median(medians[peer]))
    for peer, measured in found.items():
        speeds = sorted(tokens / seconds for each in measured for seconds in each["seconds"])
        spread = f"{speeds[0]:,.0f} to {speeds[-1]:,.0f}"
        speed = _middle_ratio(medians[faster], medians[peer])
        time_of_one = _middle_ratio(medians[peer], medians["wmtp, 1 head"])
        memory = max(each["peak"] for each in measured)
        parameters = f"{measured[0]['parameters'] / 1e6:.0f} | {statistics.median(speeds):,.0f}"
        print(f"| {peer} | {parameters} | {spread} | {speed:.2f} | {time_of_one:.2f} | {memory:.2f} |")


def _middle_ratio(seconds: list[float], of: list[float]) -> float:
    return statistics.median(each / other for each, other in zip(seconds, of, strict=True))


if __name__ == "__main__":
    main()
