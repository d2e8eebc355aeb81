"""What `Trainer` switches: dropout, and recomputing activations, in the trunk and in heads with layers like its own."""

from __future__ import annotations

from typing import Any, Self

from torch import nn
from transformers import PreTrainedModel
from typing_extensions import override

from wmtp.models.parts import TrunkParts


class Recomputing(nn.Module):
    """What `Trainer` calls on a model whose heads have layers of the trunk's kinds.

    Attributes:
        trunk: The causal LM.
        heads: What stands on it.
        keeps_trunk: Whether the trunk is not trained, and computes as it will when it is served.
    """

    trunk: PreTrainedModel
    heads: nn.ModuleDict
    keeps_trunk: bool = False
    _parts: TrunkParts

    @override
    def train(self, mode: bool = True) -> Self:
        """Set the mode of every part; a trunk that is kept stays in eval mode, without dropout."""
        super().train(mode)
        if self.keeps_trunk:
            self.trunk.eval()
        return self

    def activation_checkpointing_enable(
        self, activation_checkpointing_kwargs: dict[str, Any] | None = None, **options: Any
    ) -> None:
        """Recompute decoder layers in the backward pass, those of the heads too; `Trainer` calls this."""
        self.trunk.activation_checkpointing_enable(activation_checkpointing_kwargs, **options)
        for layer in self._checkpointing_layers():
            like: Any = self.trunk.get_submodule(self._parts.last_layer)
            layer.gradient_checkpointing = like.gradient_checkpointing
            layer._gradient_checkpointing_func = like._gradient_checkpointing_func

    def activation_checkpointing_disable(self) -> None:
        """Keep activations for the backward pass again."""
        self.trunk.activation_checkpointing_disable()
        for layer in self._checkpointing_layers():
            layer.gradient_checkpointing = False

    def _checkpointing_layers(self) -> list[Any]:
        return [layer for layer in self.heads.modules() if hasattr(layer, "gradient_checkpointing")]
