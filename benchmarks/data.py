"""Preparing large data: seconds, tokens a second and resident memory, first and second start, beside TRL's.

    python benchmarks/data.py --tokenizer DIR --text FILE [FILE ...] --gigabytes 1 [--num-proc 1 2] [--trl]

The corpus is made of the lines of the texts, in random order, so many times as it takes. Every measurement has a
process of its own; memory is what it and its children have resident at once, pages of mapped files included.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import time
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psutil

_DOCUMENT_LINES = 40
_LENGTH = 1024
_READ_ROWS = 200_000


def write_corpus(texts: list[Path], size: int, directory: Path) -> tuple[Path, Path]:
    """Write about `size` bytes of lines as one text file, and the same text as JSONL; returns both."""
    lines = [line for text in texts for line in text.read_text(encoding="utf-8").splitlines() if line.strip()]
    plain, records, generator, written = directory / "corpus.txt", directory / "corpus.jsonl", random.Random(0), 0
    with plain.open("w", encoding="utf-8") as text, records.open("w", encoding="utf-8") as jsonl:
        while written < size:
            generator.shuffle(lines)
            for start in range(0, len(lines), _DOCUMENT_LINES):
                document = "\n".join(lines[start : start + _DOCUMENT_LINES]) + "\n"
                text.write(document)
                jsonl.write(json.dumps({"text": document}) + "\n")
                written += len(document)
    return plain, records


def measured(act: str, *words: object) -> dict[str, Any]:
    """Return what a process of its own says of an act, with its seconds and the most memory that it had resident."""
    started, peak = time.perf_counter(), 0
    command = [sys.executable, __file__, "--act", act, *map(str, words)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    own = psutil.Process(process.pid)
    while process.poll() is None:
        with suppress(psutil.NoSuchProcess):
            peak = max(peak, sum(each.memory_info().rss for each in (own, *own.children(recursive=True))))
        time.sleep(0.1)
    assert process.returncode == 0, act
    assert process.stdout is not None
    facts: dict[str, Any] = json.loads(process.stdout.read().splitlines()[-1])
    return {"total": time.perf_counter() - started, "resident": peak, **facts}


def ours(tokenizer: str, file: str, cache: str, num_proc: str) -> dict[str, Any]:
    """Prepare a file as a run does; again when the tokens are there."""
    import torch
    from transformers import AutoTokenizer

    from wmtp.data.corpus import read_corpus
    from wmtp.settings.recipe import Recipe

    made, _ = AutoTokenizer.from_pretrained(tokenizer), torch.set_num_threads(1)
    data = {"train": {"files": [file], "max_length": _LENGTH}, "num_proc": int(num_proc)}
    train = {"algo": "baseline-mtp", "max_steps": 1}
    recipe = Recipe.model_validate({"run": {"name": "bench"}, "data": data, "train": train})
    started, before = time.perf_counter(), psutil.Process().memory_info().rss
    rows, _ = read_corpus(recipe, made, tokenizer, {}, cache_dir=cache)
    facts = {"tokens": rows.num_tokens, "rows": len(rows), "fingerprint": rows.fingerprint(), "before": before}
    return {"seconds": time.perf_counter() - started, **facts}


def reading(tokenizer: str, file: str, cache: str, num_proc: str) -> dict[str, Any]:
    """Read rows in random order, as a sampler does, batches of 8."""
    import torch
    from transformers import AutoTokenizer

    from wmtp.data.corpus import read_corpus
    from wmtp.settings.recipe import Recipe

    made = AutoTokenizer.from_pretrained(tokenizer)
    data = {"train": {"files": [file], "max_length": _LENGTH}, "num_proc": int(num_proc)}
    train = {"algo": "baseline-mtp", "max_steps": 1}
    recipe = Recipe.model_validate({"run": {"name": "bench"}, "data": data, "train": train})
    rows, _ = read_corpus(recipe, made, tokenizer, {}, cache_dir=cache)
    order = torch.randperm(len(rows))[:_READ_ROWS].tolist()
    started, tokens = time.perf_counter(), 0
    for start in range(0, len(order), 8):
        batch = rows.collate([rows[index] for index in order[start : start + 8]])
        tokens += batch["input_ids"].numel()
    return {"seconds": time.perf_counter() - started, "tokens": tokens, "rows": len(order)}


def trl(tokenizer: str, file: str, cache: str, num_proc: str) -> dict[str, Any]:
    """Prepare the same documents as TRL's SFTTrainer does, packed into rows of the same length."""
    os.environ["HF_DATASETS_CACHE"] = cache
    from datasets import load_dataset
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM
    from trl import SFTConfig, SFTTrainer

    made = AutoTokenizer.from_pretrained(tokenizer)
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 1}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=len(made), **sizes))
    started, before = time.perf_counter(), psutil.Process().memory_info().rss
    dataset = load_dataset("json", data_files=file, split="train", cache_dir=cache)
    settings: dict[str, Any] = {"packing": True, "max_length": _LENGTH, "report_to": [], "use_cpu": True, "bf16": False}
    workers = int(num_proc) if int(num_proc) > 1 else None
    config = SFTConfig(output_dir=f"{cache}/trl", dataset_num_proc=workers, **settings)
    trainer = SFTTrainer(model=model, args=config, train_dataset=dataset, processing_class=made)
    rows: Any = trainer.train_dataset
    seconds = time.perf_counter() - started
    tokens = sum(sum(map(len, batch["input_ids"])) for batch in rows.iter(1000))
    return {"seconds": seconds, "tokens": tokens, "rows": len(rows), "before": before}


_ACTS = {"ours": ours, "reading": reading, "trl": trl}


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--act", nargs=5)
    parser.add_argument("--tokenizer")
    parser.add_argument("--text", nargs="+", type=Path)
    parser.add_argument("--gigabytes", type=float, default=1.0)
    parser.add_argument("--num-proc", nargs="+", type=int, default=[1])
    parser.add_argument("--directory", type=Path)
    parser.add_argument("--trl", action="store_true")
    parser.add_argument("--jsonl-only", action="store_true")
    options = parser.parse_args()
    if options.act:
        print(json.dumps(_ACTS[options.act[0]](*options.act[1:])))
        return
    names = ("torch", "tokenizers", "transformers", "datasets", *(["trl"] if options.trl else []))
    print(", ".join(f"{name} {version(name)}" for name in names), f"; {os.cpu_count()} cores")
    with TemporaryDirectory(dir=options.directory) as directory:
        plain, records = write_corpus(options.text, int(options.gigabytes * 1e9), Path(directory))
        for kind, file in (("text", plain), ("JSONL", records)):
            if kind == "text" and options.jsonl_only:
                continue
            for num_proc in options.num_proc:
                words = (options.tokenizer, file, Path(directory) / f"cache-{kind}-{num_proc}", num_proc)
                for name, act in (("first start", "ours"), ("second start", "ours"), ("rows at random", "reading")):
                    _show(f"wmtp, {kind}, {num_proc} process(es): {name}", measured(act, *words))
        if options.trl:
            for num_proc in options.num_proc:
                words = (options.tokenizer, records, Path(directory) / f"trl-{num_proc}", num_proc)
                _show(f"TRL, JSONL, {num_proc} process(es): first start", measured("trl", *words))
                _show(f"TRL, JSONL, {num_proc} process(es): second start", measured("trl", *words))


def _show(name: str, facts: dict[str, Any]) -> None:
    rate = f"{facts['tokens'] / facts['seconds']:,.0f} tokens/s"
    counts = f"{facts['tokens']:,} tokens in {facts['rows']:,} rows"
    before = f" ({facts['before'] / 1e9:.2f} before)" if "before" in facts else ""
    memory = f"{facts['resident'] / 1e9:.2f} GB resident{before}"
    print(f"{name}: {facts['seconds']:.1f} s, {rate}, {memory}; {counts}", flush=True)


if __name__ == "__main__":
    main()
