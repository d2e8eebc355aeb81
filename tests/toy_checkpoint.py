"""A checkpoint with a class of its own: ties made by hand, buffers of both kinds, a frozen parameter."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

from wmtp.manifest import sha256_bytes

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


def write_custom(
    directory: Path,
    *,
    modeling: str = MODELING,
    dtype: torch.dtype = torch.float32,
    float32_names: tuple[str, ...] = (),
    model_class_name: str = "ToyModel",
) -> tuple[dict[str, str], torch.nn.Module]:
    """Write the checkpoint; returns the consent that it needs and the model that was saved."""
    from transformers import PretrainedConfig

    namespace: dict = {"__name__": "toy"}
    exec(compile(modeling, "modeling.py", "exec"), namespace)
    torch.manual_seed(0)
    torch.set_default_dtype(dtype)
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
    metadata = {
        "wmtp_type": "base_model",
        "training_algorithm": "mtp",
        "base_architecture": "toy",
        "storage_version": "2.0",
        "loading_strategy": {
            "loader_type": "custom_mtp",
            "model_class_name": model_class_name,
            "custom_module_file": "modeling.py",
            "required_files": ["config.json", "model.safetensors", "modeling.py"],
        },
        "algorithm_compatibility": ["baseline-mtp"],
    }
    (directory / "metadata.json").write_text(json.dumps(metadata))
    return {"modeling.py": sha256_bytes(modeling.encode())}, model
