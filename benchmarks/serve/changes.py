"""Checkpoints that are changed on purpose: controls, and what a server makes of one that it reads differently.

A changed model has every shape and name of the right one. Nothing refuses it, and its text is the same; only the number
of accepted drafts is another.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from wmtp.publishing.publish import publish_directory

Change = Callable[[Mapping[str, Tensor]], dict[str, Tensor]]
"""From all tensors of a checkpoint to those that get other values."""
_FILE = "model.safetensors"


def changed(source: Path, destination: Path, change: Change) -> Path:
    """Return a copy of a checkpoint of one file with changed values; it is written if it is not there."""
    if not destination.exists():
        tensors = load_file(source / _FILE)
        with publish_directory(destination) as draft:
            # The manifest has the digest of the right weights.
            shutil.copytree(source, draft, ignore=shutil.ignore_patterns(_FILE, "manifest.json"), dirs_exist_ok=True)
            save_file(tensors | change(tensors), draft / _FILE, {"format": "pt"})
    return destination


def put_in_place(source: str, destination: str) -> Change:
    """Put the value of one tensor in the place of another."""
    return lambda tensors: {destination: tensors[source].clone()}


def inputs_swapped(projection: str) -> Change:
    """Swap what a module's projection takes of the hidden state with what it takes of the embedding."""
    return lambda tensors: {projection: tensors[projection].roll(tensors[projection].shape[1] // 2, 1)}


def rows_shuffled(matrix: str) -> Change:
    """Put the rows of a matrix into another order."""

    def shuffle(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        order = torch.randperm(len(tensors[matrix]), generator=torch.Generator().manual_seed(0))
        return {matrix: tensors[matrix][order]}

    return shuffle


def rotary_rows(block: str, head_dim: int, *, to_halves: bool) -> Change:
    """Order the rows of a block's queries and keys for the other form of rotary embedding.

    One form turns rows 2i and 2i + 1 together (pairs), the other i and i + head_dim / 2 (halves). With rows in the
    order of the other form, that gives the same attention.

    Args:
        block: The begin of the names in the block.
        head_dim: Rows of each attention head.
        to_halves: From pairs to halves; else from halves to pairs.
    """
    order = torch.arange(head_dim).view((-1, 2) if to_halves else (2, -1)).T.flatten()

    def reorder(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        names = [f"{block}self_attn.{part}_proj.weight" for part in ("q", "k")]
        return {name: tensors[name].unflatten(0, (-1, head_dim))[:, order].flatten(0, 1) for name in names}

    return reorder
