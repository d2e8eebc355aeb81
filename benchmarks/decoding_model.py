"""A model that `decoding.py` can measure: a llama with four heads, trained from nothing on Python's standard library.

    make bench-decoding                                       # trains two of them once, in build/decoding, and measures
    python benchmarks/decoding_model.py DIR --code library    # trains one only: a quarter of an hour
    python benchmarks/decoding_model.py DIR --code encodings  # the same

Deep and narrow, as models are (SmolLM2-135M has 30 layers, this one 10): a head costs a layer, which is a tenth of the
trunk. `library`: the top-level modules, code of all kinds, of which 600,000 tokens teach a model from nothing little.
`encodings`: the modules of that package, which are much alike, as code from templates is. Every tenth file is held out,
and prompts come from those: DIR/prompts.jsonl. Both have four heads of the type `transformer`, and 1,200 steps of 2
rows of 256 tokens.
"""

from __future__ import annotations

import argparse
import json
import logging
import random
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from wmtp import load_config, load_recipe, train
from wmtp.authoring.grow import grow
from wmtp.authoring.init import init_metadata
from wmtp.demo.zoo import stdlib_sources, train_tokenizer

HEADS, STEPS, ROWS, LENGTH = 4, 1200, 2, 256
PROMPTS, PROMPT_CHARACTERS = 16, 200
_HELD_OUT = 10


def sources(code: str) -> list[Path]:
    """Return files of Python's standard library: the modules at its top, or those of a package."""
    files = stdlib_sources()
    return files if code == "library" else sorted((files[0].parent / code).glob("[a-z]*.py"))


def write_data(directory: Path, files: list[Path]) -> list[Path]:
    """Write texts to train on, others to measure with, and prompts; returns the files that are trained on."""
    held_out = files[::_HELD_OUT]
    trained = [path for path in files if path not in held_out]
    for name, paths in (("train", trained), ("held_out", held_out)):
        _write_lines(directory / f"{name}.jsonl", [{"text": _text(path)} for path in paths])
    draws = random.Random(0)
    _write_lines(directory / "prompts.jsonl", [{"prompt": _piece(draws, held_out)} for _ in range(PROMPTS)])
    return trained


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace")


def _piece(draws: random.Random, paths: list[Path]) -> str:
    """Lines from somewhere within a file."""
    text = _text(draws.choice(paths))
    begin = text.index("\n", draws.randrange(len(text) // 2)) + 1
    return text[begin : begin + PROMPT_CHARACTERS]


def _write_lines(path: Path, lines: list[dict[str, str]]) -> None:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def write_model(directory: Path, trained: list[Path]) -> None:
    """Write a plain llama of random weights with a tokenizer of its own, and the same with heads."""
    torch.manual_seed(0)
    tokenizer = train_tokenizer(trained)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=192,
        intermediate_size=512,
        num_hidden_layers=10,
        num_attention_heads=6,
        num_key_value_heads=3,
        max_position_embeddings=1024,
        eos_token_id=tokenizer.eos_token_id,
        tie_word_embeddings=True,
    )
    LlamaForCausalLM(config).save_pretrained(directory / "plain")
    tokenizer.save_pretrained(directory / "plain")
    init_metadata(directory / "plain")
    grow(directory / "plain", directory / "heads", heads=HEADS)


def recipe(steps: int) -> dict[str, object]:
    """Return what is trained."""
    return {
        "run": {"name": "decoding"},
        "data": {"train": {"files": ["train.jsonl"], "max_length": LENGTH, "packing": True}},
        "mtp": {"horizon": HEADS},
        "train": {
            "algo": "baseline-mtp",
            "learning_rate": 1e-3,
            "warmup_ratio": 0.1,
            "lr_scheduler_type": "cosine",
            "adam_beta2": 0.95,
            "max_steps": steps,
            "per_device_train_batch_size": ROWS,
            "gradient_accumulation_steps": 1,
            "logging_steps": 50,
            "save_steps": 200,
        },
    }


def main() -> None:
    """Train the model, or go on where it was stopped."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--code", choices=("library", "encodings"), default="library")
    parser.add_argument("--steps", type=int, default=STEPS)
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    directory: Path = given.directory
    directory.mkdir(parents=True, exist_ok=True)
    if not (directory / "heads").exists():
        write_model(directory, write_data(directory, sources(given.code)))
        (directory / "config.yaml").write_text(json.dumps({"paths": {"models": {"base": ["heads"]}}}))
        (directory / "recipe.yaml").write_text(json.dumps(recipe(given.steps)))
    if not (directory / "runs/decoding/final").exists():
        resume = (directory / "runs/decoding").exists()
        train(load_config(directory / "config.yaml"), load_recipe(directory / "recipe.yaml"), resume=resume)


if __name__ == "__main__":
    main()
