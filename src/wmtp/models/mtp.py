"""The built-in model: any transformers causal LM as trunk, with heads that predict further ahead."""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.nn.functional as F  # noqa: N812 - the name that everyone knows it by
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PretrainedConfig, PreTrainedModel
from typing_extensions import override

from wmtp.models.calls import recorded_calls
from wmtp.models.heads import HeadType, LinearHead, MTPConfig, TransformerHead, find_parts
from wmtp.models.losses import Backend
from wmtp.models.output import MTPOutput, Wanted
from wmtp.models.targets import Rows

_HEADS: dict[str, type[LinearHead | TransformerHead]] = {"linear": LinearHead, "transformer": TransformerHead}


class MTPForCausalLM(nn.Module):
    """A causal LM whose own next-token head is head 1, with heads 2..H beside it.

    A `linear` head is an unembedding of its own on the final hidden state. A `transformer` head is a decoder layer of
    its own in place of the last one, then the trunk's final norm and unembedding. State-dict names are `trunk.<name in
    the causal LM>` and `heads.<k>.<...>`.

    Args:
        config: The trunk's configuration, with `mtp_config` (`n_future_tokens`, `head_type`) as an attribute.

    Attributes:
        config: As given.
        loss_backend: How cross-entropy is computed; see `per_head_cross_entropy`.

    Raises:
        CheckpointError: If `mtp_config` is absent or malformed, or if the causal LM cannot be a trunk.
    """

    loss_backend: Backend = "auto"

    def __init__(self, config: PretrainedConfig) -> None:
        super().__init__()
        MTPConfig.of(config)  # before anything is built
        self._assemble(AutoModelForCausalLM.from_config(config, trust_remote_code=False))

    @classmethod
    def around(cls, trunk: PreTrainedModel, *, heads: int, head_type: HeadType) -> MTPForCausalLM:
        """Return a model with a loaded causal LM as its trunk, every head equal to the next-token head.

        Args:
            trunk: Used as it is, not copied; its configuration gets `mtp_config`.
            heads: Heads, counting the next-token head.
            head_type: What heads 2..H are.
        """
        trunk.config.mtp_config = {"n_future_tokens": heads, "head_type": head_type}
        model = cls.__new__(cls)
        nn.Module.__init__(model)
        model._assemble(trunk)
        model.copy_next_token_head()
        return model.train(trunk.training)

    def _assemble(self, trunk: PreTrainedModel) -> None:
        self.config: PretrainedConfig = trunk.config
        heads = MTPConfig.of(self.config)
        self.head_type = heads.head_type
        self.trunk = trunk
        self._parts = find_parts(trunk)
        std = getattr(self.config.get_text_config(), "initializer_range", None) or 0.02
        self.heads = nn.ModuleDict(
            {str(k): _HEADS[self.head_type](self._next_token_part, std) for k in range(2, heads.n_future_tokens + 1)}
        )

    @property
    def num_heads(self) -> int:
        """Heads, counting the next-token head."""
        return len(self.heads) + 1

    @property
    def _next_token_part(self) -> nn.Module:
        # The part of the next-token head that every other head has of its own.
        if self.head_type == "linear":
            return self.trunk.get_output_embeddings()
        return self.trunk.get_submodule(self._parts.last_layer)

    @torch.no_grad()
    def copy_next_token_head(self) -> None:
        """Make every head equal to the next-token head, as `wmtp grow` does."""
        for head in self.heads.values():
            cast("LinearHead | TransformerHead", head).copy_from(self._next_token_part)

    def unembedding(self, k: int) -> tuple[Float[Tensor, "vocab dim"], Float[Tensor, " vocab"] | None]:
        """Return weight and bias of the unembedding that head `k` (1..H) uses."""
        own = self.head_type == "linear" and k > 1
        module: Any = self.heads[str(k)].unembedding if own else self.trunk.get_output_embeddings()
        return module.weight, getattr(module, "bias", None)

    @override
    def forward(
        self,
        input_ids: Int[Tensor, "batch seq"],
        attention_mask: Int[Tensor, "batch seq"] | None = None,
        position_ids: Int[Tensor, "batch seq"] | None = None,
        labels: Int[Tensor, "batch seq"] | None = None,
        document_ids: Int[Tensor, "batch seq"] | None = None,
        with_top1: bool = False,
        with_ce: bool = True,
    ) -> MTPOutput:
        """Return per-token cross-entropy when labels are given, else logits.

        Args:
            input_ids: Token ids.
            attention_mask: 1 on tokens, 0 on padding, for rows of one document each.
            position_ids: Restarting at 0 with each document of a packed row. Follows from `document_ids` when absent.
            labels: Unshifted token ids; -100 on prompt and padding.
            document_ids: Equal within a document of a packed row. Follows from `position_ids` when absent.
            with_top1: Also say where each head's most probable token is right.
            with_ce: False: with labels say only what is valid; nothing meets the vocabulary.

        Raises:
            TrainingError: If `attention_mask` and `document_ids` are both given.
        """
        rows = Rows.of(attention_mask, position_ids, document_ids)
        hidden, head_hidden = self._hidden(input_ids, rows)
        if labels is None:
            # Straight to the trunk's own layer: head 1 is then bit-equal to the plain model.
            logits = [F.linear(each, *self.unembedding(k)) for k, each in enumerate(head_hidden, 1)]
            return MTPOutput(logits=torch.stack(logits, dim=2), hidden_states=hidden)
        return MTPOutput.of_targets(
            head_hidden,
            self.unembedding,
            rows.targets(labels, self.num_heads),
            backend=self.loss_backend,
            wanted=Wanted(with_top1, with_ce),
            hidden_states=hidden,
        )

    def forward_heads(
        self,
        input_ids: Int[Tensor, "batch seq"],
        attention_mask: Int[Tensor, "batch seq"] | None = None,
        position_ids: Int[Tensor, "batch seq"] | None = None,
    ) -> tuple[Float[Tensor, "batch seq dim"], Float[Tensor, "batch seq future dim"]]:
        """Return the final hidden state, and what `unembedding(k)` is applied to for each head."""
        hidden, head_hidden = self._hidden(input_ids, Rows.of(attention_mask, position_ids, None))
        return hidden, torch.stack(head_hidden, dim=2)

    def _hidden(self, input_ids: Tensor, rows: Rows) -> tuple[Tensor, list[Tensor]]:
        last_layer = self.trunk.get_submodule(self._parts.last_layer)
        with recorded_calls(last_layer) as calls:
            hidden = self.trunk.base_model(input_ids=input_ids, **rows.trunk_arguments).last_hidden_state
        if self.head_type == "linear":
            return hidden, [hidden] * self.num_heads
        args, kwargs = calls[last_layer]
        final_norm = self.trunk.get_submodule(self._parts.final_norm)
        return hidden, [hidden, *(final_norm(head(*args, **kwargs)) for head in self.heads.values())]

    def activation_checkpointing_enable(
        self, activation_checkpointing_kwargs: dict[str, Any] | None = None, **options: Any
    ) -> None:
        """Recompute decoder layers in the backward pass, those of the heads too; `Trainer` calls this."""
        self.trunk.activation_checkpointing_enable(activation_checkpointing_kwargs, **options)
        like: Any = self.trunk.get_submodule(self._parts.last_layer)
        for layer in self._checkpointing_layers():
            layer.gradient_checkpointing = like.gradient_checkpointing
            layer._gradient_checkpointing_func = like._gradient_checkpointing_func

    def activation_checkpointing_disable(self) -> None:
        """Keep activations for the backward pass again."""
        self.trunk.activation_checkpointing_disable()
        for layer in self._checkpointing_layers():
            layer.gradient_checkpointing = False

    def _checkpointing_layers(self) -> list[Any]:
        return [layer for layer in self.heads.modules() if hasattr(layer, "gradient_checkpointing")]
