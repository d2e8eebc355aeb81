"""Modules with the structure of a part of the trunk, and parameters of their own."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn
from transformers import PretrainedConfig


def fresh_copy(module: nn.Module, std: float) -> nn.Module:
    """Copy a module's structure; matrices are initialised anew, vectors (norms, biases) and buffers keep their values.

    Copying matrices would read them: gigabytes of nothing when initialisation is switched off to load a checkpoint.

    Args:
        module: A part of the trunk.
        std: Standard deviation of the new matrices.
    """
    memo: dict[int, Any] = {}
    for parameter in module.parameters():
        if parameter.dim() > 1:
            memo[id(parameter)] = nn.Parameter(torch.empty_like(parameter), requires_grad=parameter.requires_grad)
            # Does nothing on the meta device; transformers puts a function in its place that does nothing, nor returns.
            nn.init.normal_(memo[id(parameter)], std=std)
    for inner in module.modules():
        # One configuration for all: a change of the attention implementation must reach the heads too.
        memo.update({id(value): value for value in vars(inner).values() if isinstance(value, PretrainedConfig)})
    return copy.deepcopy(module, memo=memo)
