"""The built-in model: any transformers causal LM as trunk, with heads that predict further ahead."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
import torch.nn.functional as F  # noqa: N812 - the name that everyone knows it by
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel
from typing_extensions import override

from wmtp.models.caches import Memory
from wmtp.models.heads import HeadType, LinearHead, MTPConfig, TransformerHead
from wmtp.models.logits import declared_change
from wmtp.models.losses import Backend
from wmtp.models.output import MTPOutput, Wanted
from wmtp.models.parts import find_parts, passed_through, refuse_layer, watched
from wmtp.models.recomputing import Recomputing
from wmtp.models.resblock import ResBlockHead
from wmtp.models.targets import Rows
from wmtp.models.trunks import build_trunk, recorded_class

_PROBE_TOKENS = 8
Head = LinearHead | ResBlockHead | TransformerHead
_HEADS: dict[str, Callable[[nn.Module, float, MTPConfig], Head]] = {
    "linear": lambda like, std, _: LinearHead(like, std),
    "resblock": ResBlockHead,
    "transformer": lambda like, std, _: TransformerHead(like, std),
}


class MTPForCausalLM(Recomputing):
    """A causal LM whose own next-token head is head 1, with heads 2..H beside it.

    A `linear` head is an unembedding of its own on the final hidden state; a `resblock` head has residual blocks before
    it, and may use the trunk's unembedding. A `transformer` head is a decoder layer of its own in place of the last
    one, then the trunk's final norm and unembedding. What the causal LM does to its logits after that, a factor or a
    soft cap, is done to those of every head. State-dict names: `trunk.<name in the causal LM>`, `heads.<k>.<...>`.

    Args:
        config: The trunk's configuration, with `mtp_config` (the fields of `MTPConfig`) as an attribute.

    Attributes:
        config: As given.
        change: What is done to logits after the unembedding.
        loss_backend, loss_shares: How cross-entropy is computed; see `per_head_cross_entropy`.
        horizon: Heads that answer to labels; those beyond are not computed then. None: all.
        trunk_type: The trunk's model type in transformers, where config.json's own is not known there.

    Raises:
        CheckpointError: If `mtp_config` is absent or malformed, or if the causal LM cannot be a trunk.
    """

    loss_backend: Backend = "auto"
    loss_shares: tuple[float, ...] | None = None
    horizon: int | None = None
    trunk_type: str | None = None

    def __init__(self, config: PretrainedConfig) -> None:
        super().__init__()
        heads = MTPConfig.of(config)  # before anything is built
        self._assemble(build_trunk(config, heads.trunk_class), config, heads)

    @classmethod
    def around(
        cls,
        trunk: PreTrainedModel,
        *,
        heads: int,
        head_type: HeadType,
        config: PretrainedConfig | None = None,
        **options: Any,
    ) -> MTPForCausalLM:
        """Return a model with a loaded causal LM as its trunk, every head equal to the next-token head.

        Args:
            trunk: Used as it is; only what heads are copies of is taken into memory where it was mapped from a file.
            heads: Heads, counting the next-token head.
            head_type: What heads 2..H are.
            config: The whole configuration, where the trunk has a part of it; it gets `mtp_config`. None: the trunk's.
            **options: Further fields of `MTPConfig`, as the head type has them.

        Raises:
            CheckpointError: If such heads have no use for an option, or if the causal LM cannot be a trunk.
        """
        config = trunk.config if config is None else config
        named = {"n_future_tokens": heads, "head_type": head_type, **recorded_class(trunk, config)}
        config.mtp_config = {**named, **options}
        config.mtp_config = MTPConfig.of(config).to_dict()
        model = cls.__new__(cls)
        nn.Module.__init__(model)
        model._assemble(trunk, config, MTPConfig.of(config))
        for parameter in model._next_token_part.parameters() if heads > 1 else ():
            # Out of the mapped file: where memory begins decides the last bit with some kernels, and copies are equal.
            parameter.data = parameter.data.clone()
        model.copy_next_token_head()
        model._ask_for_scaling()
        return model.train(trunk.training)

    def _assemble(self, trunk: PreTrainedModel, config: PretrainedConfig, heads: MTPConfig) -> None:
        self.config = config
        self.head_type = heads.head_type
        self.trunk = trunk
        self._parts = find_parts(trunk, with_layers=self.head_type == "transformer")
        # From the last layer to the hidden state; None until a forward pass was seen.
        self._path: tuple[str, ...] | None = None
        self.change = declared_change(config, heads.scaling)
        std = getattr(self.config.get_text_config(), "initializer_range", None) or 0.02
        new_head = _HEADS[self.head_type]
        self.heads = nn.ModuleDict(
            {str(k): new_head(self._next_token_part, std, heads) for k in range(2, heads.n_future_tokens + 1)}
        )

    @property
    def num_heads(self) -> int:
        """Heads, counting the next-token head."""
        return len(self.heads) + 1

    @property
    def trunk_class(self) -> str:
        """The class of transformers that builds the trunk from the configuration."""
        return MTPConfig.of(self.config).trunk_class or "AutoModelForCausalLM"

    @property
    def _next_token_part(self) -> nn.Module:
        # The part of the next-token head that every other head has of its own.
        if self.head_type == "transformer":
            return self.trunk.get_submodule(self._parts.last_layer)
        return self.trunk.get_output_embeddings()

    @torch.no_grad()
    def copy_next_token_head(self) -> None:
        """Make every head equal to the next-token head, as `wmtp grow` does."""
        for head in self.heads.values():
            cast("Head", head).copy_from(self._next_token_part)

    @torch.no_grad()
    def _ask_for_scaling(self) -> None:
        """Find out how the trunk applies the factor of its logits, and record it where its configuration misleads."""
        first = next(self.trunk.parameters())
        if self.change.factor == 1 or first.is_meta:
            return
        ids = torch.arange(_PROBE_TOKENS, device=first.device).unsqueeze(0)
        hidden, head = self._run_body(ids, Rows(None, None, None)), self.unembedding(1)
        expected = self.trunk(ids, use_cache=False).logits
        found = self.change.as_seen(lambda change: change(F.linear(change.of_hidden(hidden), *head)), expected)
        if found != self.change:
            self.config.mtp_config |= {"scaling": found.scaling}
            self.change = found

    def leave_out_heads(self, horizon: int) -> None:
        """Train heads 1..horizon only: those beyond stay as they are, and cost nothing when there are labels."""
        self.horizon = horizon
        for k, head in self.heads.items():
            if int(k) > horizon:
                head.requires_grad_(False)

    def logits(self, k: int, head_hidden: Float[Tensor, "*any dim"]) -> Float[Tensor, "*any vocab"]:
        """Return logits of head `k` (1..H) from what its unembedding is applied to, as `forward_heads` gives it."""
        # Straight to the trunk's own layer: head 1 is then bit-equal to the plain model.
        return self.change(F.linear(head_hidden, *self.unembedding(k)))

    def unembedding(self, k: int) -> tuple[Float[Tensor, "vocab dim"], Float[Tensor, " vocab"] | None]:
        """Return weight and bias of the unembedding that head `k` (1..H) uses."""
        own = getattr(self.heads[str(k)], "unembedding", None) if k > 1 else None
        module: Any = self.trunk.get_output_embeddings() if own is None else own
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
        if labels is None:
            hidden, head_hidden = self._hidden(input_ids, rows, self.num_heads)
            logits = [self.logits(k, each) for k, each in enumerate(head_hidden, 1)]
            return MTPOutput(logits=torch.stack(logits, dim=2), hidden_states=hidden)
        horizon = min(self.horizon or self.num_heads, self.num_heads)
        hidden, head_hidden = self._hidden(input_ids, rows, horizon if with_ce or with_top1 else 1)
        return MTPOutput.of_targets(
            head_hidden,
            self.unembedding,
            rows.targets(labels, horizon),
            backend=self.loss_backend,
            wanted=Wanted(with_top1, with_ce, self.change, self.loss_shares),
            hidden_states=hidden,
        )

    def forward_heads(
        self,
        input_ids: Int[Tensor, "batch seq"],
        attention_mask: Int[Tensor, "batch seq"] | None = None,
        position_ids: Int[Tensor, "batch seq"] | None = None,
    ) -> tuple[Float[Tensor, "batch seq dim"], Float[Tensor, "batch seq future dim"]]:
        """Return the final hidden state, and what `unembedding(k)` is applied to for each head."""
        hidden, head_hidden = self._hidden(input_ids, Rows.of(attention_mask, position_ids, None), self.num_heads)
        return hidden, torch.stack(head_hidden, dim=2)

    def read_on(self, input_ids: Int[Tensor, "1 seq"], memory: Memory | None, num_heads: int) -> list[Tensor]:
        """Return what `unembedding(k)` is applied to for heads 1..num_heads, of tokens that follow those in memory."""
        return self._hidden(input_ids, Rows(None, None, None), num_heads, memory)[1]

    def _hidden(
        self, input_ids: Tensor, rows: Rows, num_heads: int, memory: Memory | None = None
    ) -> tuple[Tensor, list[Tensor]]:
        """Return the final hidden state, and what the unembedding of heads 1..num_heads is applied to."""
        if num_heads == 1 or self.head_type != "transformer":
            hidden = self._run_body(input_ids, rows, memory)
            own = [self.heads[str(k)](hidden) for k in range(2, num_heads + 1)]
            return hidden, [self.change.of_hidden(each) for each in (hidden, *own)]
        with watched(self.trunk, self._parts, with_path=self._path is None) as watch:
            hidden = self._run_body(input_ids, rows, memory)
        if self._path is None:
            self._path = watch.between(self._parts.last_layer, hidden)
            if self._path is None:
                refuse_layer(self.trunk, "what its last layer answers becomes its hidden state in a way of its own")
        found = [hidden]
        for k in range(2, num_heads + 1):
            args, kwargs = watch.arguments[-1] if memory is None else memory.call_of(k, watch.arguments[-1])
            found.append(passed_through(self.trunk, self._path, self.heads[str(k)](*args, **kwargs)))
        return hidden, [self.change.of_hidden(each) for each in found]

    def _run_body(self, input_ids: Tensor, rows: Rows, memory: Memory | None = None) -> Tensor:
        body: Any = self.trunk.get_submodule(self._parts.body)
        given = rows.trunk_arguments if memory is None else memory.trunk.arguments(body)
        return cast("Tensor", body(input_ids=input_ids, **given).last_hidden_state)
