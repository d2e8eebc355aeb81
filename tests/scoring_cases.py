"""A small zoo with a base, a reference and a reward model, and rows to score; all of it real and tiny."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from transformers import AutoModelForSequenceClassification

from checkpoints import llama_metadata, write_llama_checkpoint, write_mtp_checkpoint
from tiny_models import tiny_config, tiny_mtp
from tiny_tokenizer import CODE_LINES, build_tokenizer
from wmtp.algorithms.base import Score
from wmtp.checkpoint.contents import open_checkpoint
from wmtp.data.documents import Document
from wmtp.data.rows import RowDataset, build_rows
from wmtp.loaders.tokenizer import load_tokenizer
from wmtp.metadata.file import write_metadata
from wmtp.scoring.scores import ScoringModels
from wmtp.settings.config import Config
from wmtp.settings.data import DataSource

LOSS = Score("ref_nll", "nll", role="ref")
REWARD = Score("reward", "reward", role="rm")

DOCUMENTS = [
    *(Document(line * repeats) for line in CODE_LINES for repeats in (1, 2)),
    Document("    return a + b\n", prompt="Add two numbers.\n"),
]
# Many of one length, then of several; what the last one begins with, no other has.
MANY = [
    *[Document(CODE_LINES[3])] * 6,
    *DOCUMENTS[:-1],
    *[Document(line * 3) for line in CODE_LINES[:3]],
    DOCUMENTS[-1],
]


def write_base(directory: Path) -> Path:
    return write_mtp_checkpoint(directory, tiny_mtp(heads=2, vocab_size=98))


def write_reference(directory: Path, **changes) -> Path:
    """A llama whose weights are large enough that tokens differ in their losses."""
    return write_llama_checkpoint(directory, **({"initializer_range": 0.2} | changes))


def write_reward(directory: Path, tokenizer=None, *, metadata=(), **changes) -> Path:
    """A classifier of sequences with one label."""
    tokenizer = tokenizer or build_tokenizer()
    settings = {"vocab_size": len(tokenizer), "num_labels": 1, "pad_token_id": 0, "initializer_range": 0.2}
    config = tiny_config("llama", **(settings | changes))
    torch.manual_seed(1)
    AutoModelForSequenceClassification.from_config(config).save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    strategy = {
        "loader_type": "huggingface",
        "transformers_class": "AutoModelForSequenceClassification",
        "required_files": ["config.json", "model.safetensors"],
    }
    declared = {
        "wmtp_type": "reward_model",
        "loading_strategy": strategy,
        "algorithm_compatibility": ["critic-wmtp"],
    }
    write_metadata(directory, llama_metadata(**(declared | dict(metadata))))
    return directory


def rows_of(documents=DOCUMENTS, *, packing=True, max_length=64) -> RowDataset:
    source = DataSource(files=["unused"], max_length=max_length, packing=packing)
    return build_rows(documents, build_tokenizer(), source, name="data.train")


def models_of(zoo: Path, **settings) -> ScoringModels:
    """The models of `zoo/base`, `zoo/ref` and `zoo/rm`; figures are kept in `zoo/scores`."""
    document = {"paths": {"models": {"base": [str(zoo / "base")]}}, "devices": {"device": "cpu"}, **settings}
    base = open_checkpoint(zoo / "base")
    uris = {"base": str(zoo / "base"), "ref": str(zoo / "ref"), "rm": str(zoo / "rm")}
    config = Config.model_validate_json(json.dumps(document))
    return ScoringModels(config, uris, base, load_tokenizer(base), zoo / "scores")


def kept(zoo: Path) -> list[Path]:
    """The directories of whole columns."""
    found = (zoo / "scores").glob("*-*")
    return sorted(path for path in found if path.is_dir() and path.suffix != ".parts")
