"""The checkpoints that tests write: tiny, real, each declared by one function."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tensor_files import tensors_as_bytes
from tiny_tokenizer import build_tokenizer
from wmtp.manifest import sha256_bytes
from wmtp.metadata.file import write_metadata
from wmtp.metadata.schema import ModelMetadata

if TYPE_CHECKING:
    import torch

BUILT_IN = {"loader_type": "custom_mtp", "model_class_name": "MTPForCausalLM"}

# Ties made by hand, buffers of both kinds, a frozen parameter.
MODELING = """
import math

import torch
from torch import nn

CONSTANT = 3


def helper_function():
    return CONSTANT


class ToyModel(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.width)
        self.head = nn.Linear(config.width, config.vocab_size, bias=False)
        self.head.weight = self.embedding.weight
        shared = nn.Parameter(torch.randn(config.width))
        self.shared_a = shared
        self.shared_b = shared
        self.frozen = nn.Parameter(torch.ones(config.width), requires_grad=False)
        self.register_buffer("ramp", torch.linspace(0, math.pi, config.width), persistent=False)
        self.register_buffer("counter", torch.zeros(2, dtype=torch.int64))
        # in __init__

    def forward(self, input_ids):
        hidden = self.embedding(input_ids) * self.shared_b + self.ramp.cos() + self.frozen
        return self.head(hidden.to(self.head.weight.dtype))
"""


def metadata_document(strategy: Mapping[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
    """A valid metadata.json of a llama checkpoint with a built-in class, changed as asked.

    A `strategy` that names a `loader_type` takes the place of the whole; otherwise it adds to the built-in class's.
    """
    strategy = strategy or {}
    own = {} if "loader_type" in strategy else BUILT_IN
    return {
        "wmtp_type": "base_model",
        "training_algorithm": "mtp",
        "base_architecture": "llama",
        "storage_version": "2.0",
        "loading_strategy": {**own, "required_files": ["config.json"], **strategy},
        "algorithm_compatibility": ["baseline-mtp"],
        **fields,
    }


def llama_metadata(**changes) -> dict[str, Any]:
    """What `write_llama_checkpoint` declares, as plain values."""
    strategy = {
        "loader_type": "huggingface",
        "transformers_class": "LlamaForCausalLM",
        "required_files": ["config.json", "model.safetensors"],
    }
    declared = {"training_algorithm": "baseline", "algorithm_compatibility": ["rho1-wmtp"], **changes}
    return metadata_document(strategy, **{"wmtp_type": "reference_model", **declared})


def write_files(directory: Path, **files: Any) -> Path:
    """A checkpoint that can be read without torch; `config={...}` for config.json, and so for any other JSON file."""
    contents = {"metadata": metadata_document(), "config": {"model_type": "llama"}, **files}
    directory.mkdir(exist_ok=True)
    for name, content in contents.items():
        (directory / f"{name}.json").write_text(json.dumps(content))
    (directory / "model.safetensors").write_bytes(tensors_as_bytes({"w": ("F32", [2])}))
    return directory


def write_llama_checkpoint(directory: Path, *, metadata: bool = True, **changes) -> Path:
    """A tiny llama as `save_pretrained` writes it, with its tokenizer, declared as a reference model."""
    import torch
    from transformers import LlamaForCausalLM
    from transformers.utils import logging

    from tiny_models import tiny_config

    logging.disable_progress_bar()
    tokenizer = build_tokenizer()
    torch.manual_seed(0)
    LlamaForCausalLM(tiny_config("llama", **({"vocab_size": len(tokenizer)} | changes))).save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    if metadata:
        write_metadata(directory, llama_metadata())
    return directory


def write_mtp_checkpoint(directory: Path, model, tokenizer=None, fits=("baseline-mtp",)) -> Path:
    """The checkpoint of an MTPForCausalLM with a tokenizer, as `wmtp grow` would write it."""
    from wmtp.publishing.write import write_model_directory

    directory.mkdir(parents=True)
    (tokenizer or build_tokenizer()).save_pretrained(directory)
    document = metadata_document(
        base_architecture=model.config.model_type,
        algorithm_compatibility=list(fits),
        mtp={"n_future_tokens": model.num_heads, "head_type": model.head_type},
    )
    write_model_directory(
        directory,
        state_dict=model.state_dict(),
        config=model.config.to_diff_dict(),
        metadata=ModelMetadata.model_validate(document),
        extra_files={name: (directory / name).read_bytes() for name in ("tokenizer.json", "tokenizer_config.json")},
    )
    return directory


def write_custom(
    directory: Path,
    *,
    modeling: str = MODELING,
    dtype: torch.dtype | None = None,
    float32_names: tuple[str, ...] = (),
    model_class_name: str = "ToyModel",
) -> tuple[dict[str, str], torch.nn.Module]:
    """A checkpoint with a class of its own; returns the consent that it needs and the model that was saved."""
    import torch
    from safetensors.torch import save_file
    from transformers import PretrainedConfig

    namespace: dict = {"__name__": "toy"}
    exec(compile(modeling, "modeling.py", "exec"), namespace)
    torch.manual_seed(0)
    torch.set_default_dtype(dtype or torch.float32)
    try:
        model = namespace["ToyModel"](PretrainedConfig(vocab_size=50, width=16)).eval()
    finally:
        torch.set_default_dtype(torch.float32)
    model.counter += 7
    tensors = {name: tensor for name, tensor in model.state_dict().items() if name not in ("head.weight", "shared_b")}
    for name in float32_names:
        tensors[name] = tensors[name].float()
    directory.mkdir(exist_ok=True)
    save_file(tensors, directory / "model.safetensors")
    (directory / "config.json").write_text('{"model_type": "toy", "vocab_size": 50, "width": 16}')
    (directory / "modeling.py").write_text(modeling)
    strategy = {
        "loader_type": "custom_mtp",
        "model_class_name": model_class_name,
        "custom_module_file": "modeling.py",
        "required_files": ["config.json", "model.safetensors", "modeling.py"],
    }
    (directory / "metadata.json").write_text(json.dumps(metadata_document(strategy, base_architecture="toy")))
    return {"modeling.py": sha256_bytes(modeling.encode())}, model


def change_tensors(directory: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    """Change what model.safetensors holds, under whatever metadata.json says of it."""
    from safetensors.torch import load_file, save_file

    tensors = load_file(directory / "model.safetensors")
    change(tensors)
    save_file(tensors, directory / "model.safetensors")


def change_metadata(directory: Path, **strategy: Any) -> None:
    """Change fields of the loading strategy without any check."""
    path = directory / "metadata.json"
    metadata = json.loads(path.read_text())
    metadata["loading_strategy"].update(strategy)
    path.write_text(json.dumps(metadata))


def change_config(directory: Path, **values: Any) -> None:
    """Change keys of config.json without any check."""
    config = json.loads((directory / "config.json").read_text()) | values
    (directory / "config.json").write_text(json.dumps(config))
