"""A model directory without weights, to plan a run of a model that is not here: headers, and a hole where weights go.

    python benchmarks/hollow.py llama-70b build/70b --heads 4
    wmtp plan --config config.yaml --recipe recipe.yaml --world-size 64 --nodes 8 paths.models.base=build/70b

The file has its full size and takes no room on a disk that knows holes. It is all zeros, and no model.
"""

from __future__ import annotations

import argparse
import json
import os
import struct
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig

from wmtp.metadata.file import write_metadata
from wmtp.models.mtp import MTPForCausalLM

_NAMES = {torch.bfloat16: "BF16", torch.float32: "F32"}
_LLAMA = {"model_type": "llama", "vocab_size": 32000, "max_position_embeddings": 4096, "tie_word_embeddings": False}
SHAPES: dict[str, dict[str, Any]] = {
    # Those of Llama 2 (arXiv 2307.09288).
    "llama-7b": _LLAMA
    | {"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32},
    "llama-70b": _LLAMA
    | {
        "hidden_size": 8192,
        "intermediate_size": 28672,
        "num_hidden_layers": 80,
        "num_attention_heads": 64,
        "num_key_value_heads": 8,
    },
}


def main() -> None:
    """Write the directory that the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", help=f"a config.json of transformers, or one of {', '.join(SHAPES)}")
    parser.add_argument("directory", type=Path)
    parser.add_argument("--heads", type=int, default=4, help="counting the next-token head")
    parser.add_argument("--head-type", default="transformer", choices=["linear", "transformer", "resblock"])
    parser.add_argument("--dtype", default="bfloat16", choices=["bfloat16", "float32"])
    asked = parser.parse_args()
    document = SHAPES.get(asked.config) or json.loads(Path(asked.config).read_text())
    write_hollow(document, asked.directory, asked.heads, asked.head_type, getattr(torch, asked.dtype))


def write_hollow(document: dict[str, Any], directory: Path, heads: int, head_type: str, dtype: torch.dtype) -> None:
    """Write config.json, metadata.json and a hollow model.safetensors of the model that a config.json describes."""
    model_type = document["model_type"]
    config = AutoConfig.for_model(**document)
    config.mtp_config = {"n_future_tokens": heads, "head_type": head_type}
    with torch.device("meta"):
        model = MTPForCausalLM(config)
    directory.mkdir(parents=True)
    config.save_pretrained(directory)
    _write_hole(directory / "model.safetensors", dict(model.named_parameters()), dtype)
    metadata = {
        "wmtp_type": "base_model",
        "training_algorithm": "mtp",
        "base_architecture": model_type,
        "storage_version": "2.0",
        "loading_strategy": {
            "loader_type": "custom_mtp",
            "model_class_name": "MTPForCausalLM",
            "required_files": ["config.json", "model.safetensors"],
        },
        "algorithm_compatibility": ["baseline-mtp", "critic-wmtp", "rho1-wmtp"],
        "mtp": {"n_future_tokens": heads, "head_type": head_type},
    }
    write_metadata(directory, metadata)


def _write_hole(path: Path, parameters: dict[str, torch.nn.Parameter], dtype: torch.dtype) -> None:
    header, end = {}, 0
    for key, parameter in parameters.items():
        start, end = end, end + parameter.numel() * dtype.itemsize
        header[key] = {"dtype": _NAMES[dtype], "shape": list(parameter.shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        os.truncate(file.fileno(), 8 + len(text) + end)


if __name__ == "__main__":
    main()
