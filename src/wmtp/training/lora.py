"""Adapters on the trunk's linear layers, by the library peft; what is saved of them is the model with them merged."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from wmtp.errors import TrainingError
from wmtp.loaders.base import LoadResult
from wmtp.models.mtp import MTPForCausalLM
from wmtp.publishing.write import write_json, write_shard
from wmtp.run_plan.trained import ends_of, is_named, refuse_layers
from wmtp.settings.trainable import Lora

logger = logging.getLogger("wmtp")

ADAPTER_DIRECTORY = "adapter"
_ADAPTER_FILE = "adapter_model.safetensors"
_NAME = "default"
_BASE_LAYER = "base_layer."
_PARTS = ("lora_A", "lora_B")
# What the library calls a model inside the one that it makes.
_PREFIX = "base_model.model."


def add_adapters(trunk: PreTrainedModel, lora: Lora, seed: int) -> None:
    """Put adapters on linear layers of a trunk, in place; they alone are trained of it.

    They are in float32 whatever the trunk is in, and change nothing before they have learned something. From now on the
    trunk's state dict is that of the model with its adapters merged, under the names that it had without them.

    Args:
        trunk: A causal LM.
        lora: Of which kind they are, and on which layers.
        seed: What they begin from.

    Raises:
        TrainingError: If a layer that is named does not exist, or a layer is one that adapters cannot stand on.

    Source: Hu et al. 2021 (LoRA, arXiv 2106.09685), section 4.1: W + (alpha / r) B A with B = 0 at first.
    """
    from peft import inject_adapter_in_model
    from peft.tuners.tuners_utils import cast_adapter_dtype

    layers = _chosen_layers(trunk, lora.target_modules)
    trunk.requires_grad_(False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            # In another module: of a model that it knows, the library would put them on experts that nobody named.
            inject_adapter_in_model(_settings(trunk, lora, layers), nn.ModuleDict({"trunk": trunk}), _NAME)
        except ValueError as error:
            raise TrainingError(
                f"adapters cannot stand on {type(trunk).__name__}: {error}",
                hint="name other layers in train.lora.target_modules, or train all of it (train.trainable: all)",
            ) from error
    cast_adapter_dtype(trunk, _NAME)
    trunk.register_state_dict_post_hook(_merge)
    count = sum(parameter.numel() for parameter in trunk.parameters() if parameter.requires_grad)
    logger.info(
        "%d linear layers of the trunk have adapters of rank %d: %s parameters", len(layers), lora.r, f"{count:,}"
    )


def write_adapter(directory: Path, base: LoadResult, lora: Lora | None) -> None:
    """Write the adapters of a model's trunk below a directory, as `peft.PeftModel.from_pretrained` reads them.

    They stand on the trunk as it was loaded. A model without adapters leaves nothing there.
    """
    if lora is None:
        return
    trunk = _trunk(base.model)
    adapters = dict(_adapters(trunk))
    tensors = {
        f"{_PREFIX}{name}.{part}.weight": getattr(layer, part)[_NAME].weight
        for name, layer in adapters.items()
        for part in _PARTS
    }
    settings = _settings(trunk, lora, list(adapters)).to_dict()
    settings |= {"base_model_name_or_path": base.checkpoint.where, "inference_mode": True}
    settings["target_modules"] = sorted(settings["target_modules"])
    below = directory / ADAPTER_DIRECTORY
    below.mkdir()
    write_shard(below / _ADAPTER_FILE, tensors)
    write_json(below / "adapter_config.json", settings)


def of_adapter(name: str) -> bool:
    """Say whether a parameter of a model is one of an adapter, or of the frozen layer that it stands on."""
    return any(f".{part}." in name for part in (*_PARTS, _BASE_LAYER.rstrip(".")))


@torch.no_grad()
def take_adapters(model: nn.Module, checkpoint: Path) -> None:
    """Give the adapters of a model's trunk the values that a checkpoint has of them; nothing where there are none.

    Args:
        model: With the adapters that `add_adapters` made.
        checkpoint: What `write_adapter` has written into, by a run of the same recipe.
    """
    from safetensors.torch import load_file

    adapters = dict(_adapters(_trunk(model)))
    tensors = load_file(checkpoint / ADAPTER_DIRECTORY / _ADAPTER_FILE) if adapters else {}
    for name, layer in adapters.items():
        for part in _PARTS:
            getattr(layer, part)[_NAME].weight.copy_(tensors[f"{_PREFIX}{name}.{part}.weight"])


def _trunk(model: nn.Module) -> Any:
    return model.trunk if isinstance(model, MTPForCausalLM) else model


def _settings(trunk: PreTrainedModel, lora: Lora, layers: list[str]) -> Any:
    from peft import LoraConfig

    kinds = {type(getattr(layer, "base_layer", layer)) for layer in map(trunk.get_submodule, layers)}
    return LoraConfig(
        r=lora.r,
        lora_alpha=cast("int", lora.alpha),
        lora_dropout=lora.dropout,
        target_modules=_shortest(layers, list(_linear_layers(trunk))),
        fan_in_fan_out=Conv1D in kinds,
        task_type="CAUSAL_LM",
    )


def _linear_layers(trunk: PreTrainedModel) -> Iterator[str]:
    """Yield the linear layers of a trunk but its unembedding: heads read that as a matrix, and would see no adapter."""
    unembedding = trunk.get_output_embeddings()
    adapted = dict(_adapters(trunk))
    for name, module in trunk.named_modules():
        is_linear = isinstance(module, (nn.Linear, Conv1D)) and module is not unembedding
        if name in adapted or (is_linear and not any(owner in adapted for owner in _owners(name))):
            yield name


def _chosen_layers(trunk: PreTrainedModel, targets: list[str] | None) -> list[str]:
    layers = list(_linear_layers(trunk))
    if lacking := [each for each in targets or () if not any(is_named(layer, each) for layer in layers)]:
        refuse_layers(lacking, ends_of(layers), type(trunk).__name__)
    if not layers:
        raise TrainingError(
            f"{type(trunk).__name__} has no linear layer that adapters could stand on",
            hint="train all of it: train.trainable: all",
        )
    return layers if targets is None else [each for each in layers if any(is_named(each, name) for name in targets)]


def _shortest(chosen: list[str], layers: list[str]) -> list[str]:
    """Return the ends of names where they mean the chosen layers and no others, else whole names."""
    ends = ends_of(chosen)
    return ends if [each for each in layers if any(is_named(each, end) for end in ends)] == chosen else chosen


def _adapters(trunk: nn.Module) -> Iterator[tuple[str, Any]]:
    for name, module in trunk.named_modules():
        if hasattr(module, "lora_A") and hasattr(module, "base_layer"):
            yield name, module


@torch.no_grad()
def _merge(trunk: nn.Module, state: dict[str, Tensor], prefix: str, _: Any) -> None:
    """Give a state dict that was just made the names and values of a trunk without adapters; changes no parameter."""
    layers = {prefix + name: layer for name, layer in _adapters(trunk)}
    entries = list(state.items())
    state.clear()
    for name, tensor in entries:
        owner = next((each for each in _owners(name) if each in layers), None)
        if owner is None:
            state[name] = tensor
        elif (rest := name.removeprefix(f"{owner}.")).startswith(_BASE_LAYER):
            rest = rest.removeprefix(_BASE_LAYER)
            state[f"{owner}.{rest}"] = _merged(layers[owner], tensor) if rest == "weight" else tensor


def _owners(name: str) -> Iterator[str]:
    """Yield the names of the modules that something is in, the innermost first."""
    while name := name.rpartition(".")[0]:
        yield name


def _merged(layer: Any, weight: Tensor) -> Tensor:
    # Added in float32 and rounded once.
    return (weight.float() + layer.get_delta_weight(_NAME).float()).to(weight.dtype)
