"""A small zoo of checkpoints of many kinds, each with the metadata.json that says how it loads."""

from __future__ import annotations

import sysconfig
from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification, PreTrainedTokenizerFast

from wmtp.checkpoint.tokenizer import tokenizer_files, tokenizer_fingerprint
from wmtp.demo.gpt2_modeling import GPTMTPForCausalLM
from wmtp.metadata.file import write_metadata
from wmtp.metadata.heads import MTPInfo
from wmtp.metadata.schema import LoadingStrategy, ModelMetadata, StateDictMapping
from wmtp.models.mtp import MTPForCausalLM
from wmtp.publishing.publish import publish_directory
from wmtp.publishing.write import write_model_directory
from wmtp.storage.opening import open_store

NUM_HEADS = 4
_VOCABULARY = 1536
_END = "<|endoftext|>"
_WIDTH, _LAYERS, _ATTENTION_HEADS, _CONTEXT = 128, 3, 4, 256
CODE_FILE = "modeling.py"
_ALL = ["baseline-mtp", "critic-wmtp", "rho1-wmtp"]


def stdlib_sources() -> list[Path]:
    """Return the top-level modules of Python's standard library: some 150 files that every machine has."""
    return sorted(Path(sysconfig.get_paths()["stdlib"]).glob("[a-z]*.py"))


def train_tokenizer(sources: list[Path]) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE tokenizer on source files."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=_VOCABULARY,
        special_tokens=[_END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator((path.read_text(encoding="utf-8", errors="replace") for path in sources), trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=_END)


@dataclass(frozen=True)
class Exhibit:
    """One checkpoint of the zoo.

    Attributes:
        name: Its directory.
        architecture: Its `base_architecture`.
        config: What its configuration has beyond the sizes that all share.
        build: Makes the model from the configuration.
        metadata: The fields of metadata.json that are its own.
        tensor_prefix: Put before its tensors' names, as some projects save them.
    """

    name: str
    architecture: str
    config: dict[str, Any]
    build: Callable[[Any], nn.Module]
    metadata: dict[str, Any]
    tensor_prefix: str = ""


def _declare(wmtp_type: str, made_by: str, fits: list[str], strategy: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "wmtp_type": wmtp_type,
        "training_algorithm": made_by,
        "algorithm_compatibility": fits,
        "loading_strategy": strategy,
        **more,
    }


_CAUSAL_LM = {"loader_type": "huggingface", "transformers_class": "AutoModelForCausalLM"}
EXHIBITS = (
    Exhibit(
        "gpt2-mtp", "gpt2", {"n_future_tokens": NUM_HEADS}, GPTMTPForCausalLM,
        _declare("base_model", "mtp", _ALL, {
            "loader_type": "custom_mtp", "model_class_name": "GPTMTPForCausalLM", "custom_module_file": CODE_FILE,
        }, mtp=MTPInfo(n_future_tokens=NUM_HEADS)),
        tensor_prefix="base_model.",
    ),
    Exhibit(
        "llama-mtp", "llama", {"mtp_config": {"n_future_tokens": NUM_HEADS, "head_type": "transformer"}},
        MTPForCausalLM,
        _declare("base_model", "mtp", _ALL, {
            "loader_type": "custom_mtp", "model_class_name": "MTPForCausalLM",
        }, mtp=MTPInfo(n_future_tokens=NUM_HEADS, head_type="transformer")),
    ),
    Exhibit(
        "llama-ref", "llama", {}, AutoModelForCausalLM.from_config,
        _declare("reference_model", "baseline", ["rho1-wmtp"], _CAUSAL_LM),
    ),
    Exhibit(
        "mistral-rm", "mistral", {"num_labels": 1, "pad_token_id": 0}, AutoModelForSequenceClassification.from_config,
        _declare("reward_model", "critic", ["critic-wmtp"], {
            "loader_type": "huggingface", "transformers_class": "AutoModelForSequenceClassification",
        }),
    ),
    Exhibit(
        "llama-plain", "llama", {}, AutoModelForCausalLM.from_config,
        _declare("base_model", "baseline", [], _CAUSAL_LM),
    ),
)  # fmt: skip


def make_zoo(directory: Path) -> list[Path]:
    """Write every exhibit below a directory; returns their directories."""
    tokenizer = train_tokenizer(stdlib_sources())
    return [write_exhibit(exhibit, directory / exhibit.name, tokenizer) for exhibit in EXHIBITS]


def write_exhibit(exhibit: Exhibit, directory: Path, tokenizer: PreTrainedTokenizerFast) -> Path:
    """Write one freshly initialised checkpoint, complete or not at all."""
    torch.manual_seed(0)
    config = AutoConfig.for_model(exhibit.architecture, **_sizes(exhibit.architecture), **exhibit.config)
    model = exhibit.build(config)
    with publish_directory(directory) as draft:
        tokenizer.save_pretrained(draft)
        names = tokenizer_files(open_store(draft))
        extra_files: dict[str, bytes | Path] = {name: (draft / name).read_bytes() for name in names}
        if exhibit.metadata["loading_strategy"].get("custom_module_file"):
            extra_files[CODE_FILE] = files("wmtp.demo").joinpath("gpt2_modeling.py").read_bytes()
        written = write_model_directory(
            draft,
            state_dict={exhibit.tensor_prefix + name: tensor for name, tensor in model.state_dict().items()},
            config=config.to_dict(),
            metadata=_metadata(exhibit, draft),
            extra_files=extra_files,
        )
        if exhibit.tensor_prefix:
            mapping = StateDictMapping(remove_prefix=exhibit.tensor_prefix)
            strategy = written.loading_strategy.model_copy(update={"state_dict_mapping": mapping})
            write_metadata(draft, written.model_copy(update={"loading_strategy": strategy}))
    return directory


def _metadata(exhibit: Exhibit, draft: Path) -> ModelMetadata:
    strategy = LoadingStrategy(**exhibit.metadata["loading_strategy"], required_files=["config.json"])
    return ModelMetadata(
        **{**exhibit.metadata, "loading_strategy": strategy},
        base_architecture=exhibit.architecture,
        storage_version="2.0",
        tokenizer=tokenizer_fingerprint(open_store(draft)),
        created_by="wmtp demo",
    )


def _sizes(architecture: str) -> dict[str, Any]:
    common = {"vocab_size": _VOCABULARY, "bos_token_id": 0, "eos_token_id": 0, "tie_word_embeddings": False}
    if architecture == "gpt2":
        sizes = {"n_embd": _WIDTH, "n_layer": _LAYERS, "n_head": _ATTENTION_HEADS, "n_positions": _CONTEXT}
        return {**common, **sizes, "resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
    return {
        **common,
        "hidden_size": _WIDTH,
        "intermediate_size": 3 * _WIDTH,
        "num_hidden_layers": _LAYERS,
        "num_attention_heads": _ATTENTION_HEADS,
        "num_key_value_heads": _ATTENTION_HEADS,
        "max_position_embeddings": _CONTEXT,
    }
