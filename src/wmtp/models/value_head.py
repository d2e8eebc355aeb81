"""A value head on a trunk: what reward a document is expected to get, after each of its tokens."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from typing_extensions import override

from wmtp.errors import TrainingError
from wmtp.models.adapter import ForeignModel
from wmtp.models.mtp import MTPForCausalLM
from wmtp.models.output import MTPOutput


class ValueHead(nn.Module):
    """A norm, a hidden layer and an output that starts at zero, in fp32 whatever the trunk computes in.

    Args:
        dim: Width of the trunk's hidden state.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.hidden = nn.Linear(dim, dim)
        self.output = nn.Linear(dim, 1)
        nn.init.zeros_(self.output.weight)  # before anything is learned every document is worth the mean reward
        nn.init.zeros_(self.output.bias)

    @override
    def forward(self, hidden: Float[Tensor, "batch seq dim"]) -> Float[Tensor, "batch seq"]:
        """Return the expected reward, in deviations from its mean, after each token."""
        # Under autocast too: differences of neighbouring values are what is used, and bf16 rounds them away.
        with torch.autocast(hidden.device.type, enabled=False):
            activated = torch.nn.functional.gelu(self.hidden(self.norm(hidden.float())))
            return self.output(activated).squeeze(-1)


class WithValueHead(nn.Module):
    """A trainable model with a value head beside it; answers what the model answers, with `state_values`.

    Args:
        model: What `trainable` returned.
        dim: Width of its hidden state.
        detach_trunk: Keep the gradient of values from the trunk.
    """

    def __init__(self, model: MTPForCausalLM | ForeignModel, dim: int, *, detach_trunk: bool) -> None:
        super().__init__()
        self.model = model
        self.value_head = ValueHead(dim)
        self.detach_trunk = detach_trunk

    @override
    def forward(self, *args: Any, **kwargs: Any) -> MTPOutput:
        """Return the model's own answer with the values of its hidden states."""
        output: MTPOutput = self.model(*args, **kwargs)
        hidden = hidden_states(output, self.model)
        answer = {field.name: getattr(output, field.name) for field in fields(output)}
        return MTPOutput(**answer | {"state_values": self.value_head(hidden.detach() if self.detach_trunk else hidden)})

    def leave_out_heads(self, horizon: int) -> None:
        """Pass on to the model."""
        self.model.leave_out_heads(horizon)

    def activation_checkpointing_enable(self, *args: Any, **kwargs: Any) -> None:
        """Pass on to the model."""
        self.model.activation_checkpointing_enable(*args, **kwargs)


def hidden_states(output: MTPOutput, model: nn.Module) -> Float[Tensor, "batch seq dim"]:
    """Return the trunk's hidden states, or raise TrainingError for a model that gives none."""
    if output.hidden_states is None:
        raise TrainingError(
            f"{type(model).__name__}: the base model's class returns logits and no hidden states for a value head",
            hint="give the class forward_heads and unembedding; docs/extending.md shows both",
        )
    return output.hidden_states
