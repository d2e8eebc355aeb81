"""Small real things that several tests build; tiny models are in tiny_models.py."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

CODE_LINES = [
    "def add(a, b):\n    return a + b\n",
    "def subtract(a, b):\n    return a - b\n",
    "for number in range(10):\n    print(number)\n",
    "class Point:\n    def __init__(self, x, y):\n        self.x = x\n        self.y = y\n",
]


def build_tokenizer(vocab_size: int = 96, *, begins_texts: bool = False):
    """A byte-level BPE tokenizer trained on a few lines; `</s>` is 0, `<s>` is 1."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    # Without the 256 bytes as a start alphabet, a vocabulary of a hundred would have no room for merges;
    # tests keep to the characters of CODE_LINES and printable ASCII.
    alphabet = ["Ċ", "Ġ", *map(chr, range(33, 127))]
    trainer = trainers.BpeTrainer(
        vocab_size=max(vocab_size, len(alphabet) + 2),
        special_tokens=["</s>", "<s>"],
        initial_alphabet=alphabet,
        show_progress=False,
    )
    tokenizer.train_from_iterator(CODE_LINES, trainer)
    if begins_texts:
        tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>", bos_token="<s>")


def write_code_file(path: Path, repeats: int = 4) -> Path:
    """A text file of a few lines of Python that `build_tokenizer` can spell."""
    path.write_text("\n".join(CODE_LINES * repeats))
    return path


def write_mtp_checkpoint(directory: Path, model, tokenizer=None, fits=("baseline-mtp",)) -> Path:
    """The checkpoint of an MTPForCausalLM with a tokenizer, as `wmtp grow` would write it."""
    from wmtp.metadata.schema import ModelMetadata
    from wmtp.publishing.write import write_model_directory

    directory.mkdir(parents=True)
    (tokenizer or build_tokenizer()).save_pretrained(directory)
    names = ("tokenizer.json", "tokenizer_config.json")
    document = {
        "wmtp_type": "base_model",
        "training_algorithm": "mtp",
        "base_architecture": model.config.model_type,
        "storage_version": "2.0",
        "loading_strategy": {
            "loader_type": "custom_mtp",
            "model_class_name": "MTPForCausalLM",
            "required_files": ["config.json"],
        },
        "algorithm_compatibility": list(fits),
        "mtp": {"n_future_tokens": model.num_heads, "head_type": model.head_type},
    }
    write_model_directory(
        directory,
        state_dict=model.state_dict(),
        config=model.config.to_diff_dict(),
        metadata=ModelMetadata.model_validate(document),
        extra_files={name: (directory / name).read_bytes() for name in names},
    )
    return directory


def write_llama_checkpoint(directory: Path, *, metadata: bool = True, **changes) -> Path:
    """A tiny llama as `save_pretrained` writes it, with its tokenizer, declared as a reference model."""
    import torch
    from transformers import LlamaForCausalLM
    from transformers.utils import logging

    from tiny_models import tiny_config
    from wmtp.metadata.file import write_metadata

    logging.disable_progress_bar()
    tokenizer = build_tokenizer()
    torch.manual_seed(0)
    LlamaForCausalLM(tiny_config("llama", **({"vocab_size": len(tokenizer)} | changes))).save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    if metadata:
        write_metadata(directory, llama_metadata())
    return directory


def llama_metadata(**changes) -> dict:
    """What `write_llama_checkpoint` declares, as plain values."""
    strategy = {"loader_type": "huggingface", "transformers_class": "LlamaForCausalLM"}
    return {
        "wmtp_type": "reference_model",
        "training_algorithm": "baseline",
        "base_architecture": "llama",
        "storage_version": "2.0",
        "loading_strategy": {**strategy, "required_files": ["config.json", "model.safetensors"]},
        "algorithm_compatibility": ["rho1-wmtp"],
        **changes,
    }


def safetensors_bytes(header: Any, data: bytes = b"", *, length: int | None = None) -> bytes:
    """A safetensors file by hand: a header as JSON values or raw bytes, and whatever follows it."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def tensor_entry(dtype: str, shape: Sequence[int], start: int, end: int) -> dict[str, Any]:
    """One tensor of a safetensors header."""
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [start, end]}


def tensors_as_bytes(tensors: Mapping[str, tuple[str, Sequence[int]]]) -> bytes:
    """A safetensors file of zeros: `{"w": ("F32", [2, 3])}`, one tensor after the other."""
    sizes = {"F64": 8, "I64": 8, "F32": 4, "I32": 4, "F16": 2, "BF16": 2, "U8": 1, "BOOL": 1}
    header, end = {}, 0
    for name, (dtype, shape) in tensors.items():
        start, end = end, end + math.prod(shape) * sizes[dtype]
        header[name] = tensor_entry(dtype, shape, start, end)
    return safetensors_bytes(header, b"\0" * end)


def write_index(directory: Path, weight_map: Mapping[str, Any], **metadata: Any) -> None:
    """A shard index beside its shards."""
    index = {"metadata": metadata, "weight_map": weight_map}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index))


def metadata_document(strategy: Mapping[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
    """A valid metadata.json of a llama checkpoint with a built-in class, changed as asked."""
    return {
        "wmtp_type": "base_model",
        "training_algorithm": "mtp",
        "base_architecture": "llama",
        "storage_version": "2.0",
        "loading_strategy": {
            "loader_type": "custom_mtp",
            "model_class_name": "MTPForCausalLM",
            "required_files": ["config.json"],
            **(strategy or {}),
        },
        "algorithm_compatibility": ["baseline-mtp"],
        **fields,
    }


def write_files(directory: Path, **files: Any) -> Path:
    """A checkpoint that can be read without torch; `config={...}` for config.json, and so for any other JSON file."""
    contents = {"metadata": metadata_document(), "config": {"model_type": "llama"}, **files}
    directory.mkdir(exist_ok=True)
    for name, content in contents.items():
        (directory / f"{name}.json").write_text(json.dumps(content))
    (directory / "model.safetensors").write_bytes(tensors_as_bytes({"w": ("F32", [2])}))
    return directory
