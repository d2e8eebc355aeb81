"""What a demo promises about its results, held to them."""

from __future__ import annotations

import torch
from torch import nn

from wmtp.demo.setting import Tell
from wmtp.errors import TrainingError
from wmtp.loaders.base import LoadResult


def check_equal(trained: nn.Module, reloaded: LoadResult, tell: Tell) -> None:
    """Show that a reloaded model gives the same hidden states as the one in memory, bit for bit."""
    ids = torch.arange(64).view(1, 64)
    with torch.no_grad():
        pairs = [(a, b) for a, b in zip(_heads(trained, ids), _heads(reloaded.model, ids), strict=True)]
    if not all(torch.equal(a, b) for a, b in pairs):
        raise TrainingError(
            f"{reloaded.receipt.uri}: its outputs differ from those of the model in memory",
            hint="this is a fault in wmtp: please report it with what 'wmtp env' prints",
        )
    tell(f"outputs of {reloaded.receipt.uri} equal those of the trained model in memory, bit for bit")


def _heads(model: nn.Module, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    outputs: tuple[torch.Tensor, torch.Tensor] = model.eval().forward_heads(ids)  # type: ignore[operator]
    return outputs
