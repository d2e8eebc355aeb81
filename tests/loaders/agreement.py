"""Tiny checkpoints of many kinds, ways to damage them, and what `from_pretrained` says of them."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import nn
from transformers.utils import logging

from tiny_models import tiny_config, tokens
from wmtp.checkpoint.headers import SINGLE_FILE
from wmtp.checkpoint.index import INDEX_FILE

logging.disable_progress_bar()

CLASSES = ("AutoModelForCausalLM", "AutoModelForSequenceClassification", "AutoModel")
IDS = tokens(2, 9, seed=1)
Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Saved:
    """What to save: a class of an architecture, in a dtype, in one file or several."""

    architecture: str = "llama"
    auto_class: str = "AutoModelForCausalLM"
    tied: bool = False
    stored: str = "float32"
    shards: bool = False
    seed: int = 0
    num_layers: int = 1

    def config(self) -> transformers.PretrainedConfig:
        layers = {"n_layer" if self.architecture == "gpt2" else "num_hidden_layers": self.num_layers}
        head = {"num_labels": 1, "pad_token_id": 0} if "Classification" in self.auto_class else {}
        # At the usual 0.02, differences drown in the rounding of bfloat16.
        return tiny_config(self.architecture, tie_word_embeddings=self.tied, initializer_range=0.5, **layers, **head)


def write(directory: Path, case: Saved, **strategy: Any) -> Path:
    """Save a model with transformers itself and declare it; the directory is emptied first."""
    shutil.rmtree(directory, ignore_errors=True)
    torch.manual_seed(case.seed)
    dtype = torch.float32 if case.stored == "mixed" else getattr(torch, case.stored)
    model = getattr(transformers, case.auto_class).from_config(case.config(), dtype=dtype)
    with torch.no_grad():
        for position, parameter in enumerate(model.parameters()):
            parameter.normal_()  # also norms and biases, which begin as ones and zeros
            if case.stored == "mixed" and position % 3:
                parameter.data = parameter.data.bfloat16()
    model.save_pretrained(directory, max_shard_size="12KB" if case.shards else "1GB")
    declare(directory, case, **strategy)
    return directory


def declare(directory: Path, case: Saved, **strategy: Any) -> None:
    weights = SINGLE_FILE if (directory / SINGLE_FILE).exists() else INDEX_FILE
    declared = {
        "loader_type": "huggingface",
        "transformers_class": case.auto_class,
        "required_files": ["config.json", weights],
        **strategy,
    }
    document = {
        "wmtp_type": "base_model",
        "training_algorithm": "baseline",
        "base_architecture": case.architecture,
        "storage_version": "2.0",
        "loading_strategy": declared,
        "algorithm_compatibility": [],
    }
    (directory / "metadata.json").write_text(json.dumps(document))


def stored_tensors(directory: Path) -> Tensors:
    return {name: tensor for file in directory.glob("*.safetensors") for name, tensor in load_file(file).items()}


def rewrite(directory: Path, change: Callable[[Tensors], Tensors]) -> None:
    """Change the tensors of a checkpoint as a whole; a sharded one stays sharded, its index true."""
    weight_map = {name: file.name for file in directory.glob("*.safetensors") for name in load_file(file)}
    files, held = sorted(set(weight_map.values())), change(stored_tensors(directory))
    places = {name: weight_map.get(name, files[-1]) for name in held}
    for file in files:
        (directory / file).unlink()
    for file in set(places.values()):
        part = {name: tensor.clone() for name, tensor in held.items() if places[name] == file}
        save_file(part, directory / file, metadata={"format": "pt"})
    if (directory / INDEX_FILE).exists():
        total = sum(tensor.nbytes for tensor in held.values())
        (directory / INDEX_FILE).write_text(json.dumps({"metadata": {"total_size": total}, "weight_map": places}))


@dataclass(frozen=True)
class Peer:
    """What `from_pretrained` made of a checkpoint, and the names that it complained of."""

    model: nn.Module
    missing: set[str]
    unexpected: set[str]
    mismatched: set[str]

    @property
    def complaints(self) -> set[str]:
        return self.missing | self.unexpected | self.mismatched


def from_pretrained(directory: Path, auto_class: str, dtype: torch.dtype) -> Peer:
    model, info = getattr(transformers, auto_class).from_pretrained(
        directory, dtype=dtype, output_loading_info=True, ignore_mismatched_sizes=True, local_files_only=True
    )
    assert not info["error_msgs"]
    mismatched = {entry if isinstance(entry, str) else entry[0] for entry in info["mismatched_keys"]}
    return Peer(model.eval(), set(info["missing_keys"]), set(info["unexpected_keys"]), mismatched)


def dtype_of_most_bytes(directory: Path) -> torch.dtype:
    sizes: Counter[torch.dtype] = Counter()
    for tensor in stored_tensors(directory).values():
        sizes[tensor.dtype] += tensor.nbytes if tensor.is_floating_point() else 0
    return sizes.most_common(1)[0][0]


def in_own_memory(model: nn.Module) -> nn.Module:
    """A copy whose every value begins at an aligned address, as the pages of a file do not: processors round apart."""
    copied = deepcopy(model)
    for value in (*copied.parameters(), *copied.buffers()):
        value.data = value.data.clone()
    return copied


def outputs(model: nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model(IDS)[0]


def assert_equal_models(found: nn.Module, expected: nn.Module, *, but: set[str] = frozenset()) -> None:
    """Every parameter and buffer is the same bit for bit, and so is what the models compute."""
    assert type(found) is type(expected)
    values, others = found.state_dict(), expected.state_dict()
    assert list(values) == list(others)
    buffers, other_buffers = dict(found.named_buffers()), dict(expected.named_buffers())
    assert list(buffers) == list(other_buffers)
    for name, value in {**values, **buffers}.items():
        other = {**others, **other_buffers}[name]
        assert value.dtype == other.dtype, name
        assert name in but or torch.equal(value, other), name
    assert but or torch.equal(outputs(in_own_memory(found)), outputs(in_own_memory(expected)))


def lose(held: Tensors, data: st.DataObject) -> Tensors:
    name = data.draw(st.sampled_from(sorted(held)))
    return {other: tensor for other, tensor in held.items() if other != name}


def add(held: Tensors, data: st.DataObject) -> Tensors:
    near = data.draw(st.sampled_from(sorted(held)))
    name = data.draw(st.sampled_from([f"{near}.bias", f"{near}_7", "extra.weight", f"x.{near}", "lm_head.bias"]))
    return {name: torch.ones(2), **held}


def reshape(held: Tensors, data: st.DataObject) -> Tensors:
    name = data.draw(st.sampled_from(sorted(held)))
    tensor = held[name]
    shapes = [tensor[:-1], tensor[None], tensor.flatten()[:1], torch.cat([tensor, tensor])]
    return {**held, name: data.draw(st.sampled_from(shapes)).contiguous()}


def retype(held: Tensors, data: st.DataObject) -> Tensors:
    name = data.draw(st.sampled_from(sorted(held)))
    return {**held, name: held[name].to(data.draw(st.sampled_from([torch.int32, torch.uint8, torch.bool])))}


def rename(held: Tensors, data: st.DataObject) -> Tensors:
    prefix = data.draw(st.sampled_from(["module.", "base_model.", "model.", "transformer.", "m"]))
    some = data.draw(st.sampled_from([sorted(held), sorted(held)[:1], sorted(held)[-1:]]))
    return {prefix + name if name in some else name: tensor for name, tensor in held.items()}


# In an order in which none undoes another.
FAULTS = {"lose": lose, "reshape": reshape, "retype": retype, "rename": rename, "add": add}

# More layers than a hint has room for lines: the masks must be told by a glob.
NUM_LAYERS = 11
FIRST_MASKS = [f"h.{layer}.attn.{name}" for name in ("bias", "masked_bias") for layer in range(NUM_LAYERS)]


def as_first_layout(held: Tensors) -> Tensors:
    """How the first gpt2 checkpoints named their tensors: no prefix, and the causal mask stored in every layer."""
    masks = {name: torch.ones(1, 1, 64, 64).tril() for name in FIRST_MASKS[:NUM_LAYERS]}
    fillers = {name: torch.tensor(-1e4) for name in FIRST_MASKS[NUM_LAYERS:]}
    return {name.removeprefix("transformer."): tensor for name, tensor in held.items()} | masks | fillers
