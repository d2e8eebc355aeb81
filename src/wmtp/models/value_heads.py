"""Value heads on a trunk: what reward a document is expected to get after each of its tokens, and for each of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from typing_extensions import override

from wmtp.errors import TrainingError
from wmtp.models.adapter import unwrapped
from wmtp.models.foreign import ForeignModel
from wmtp.models.mtp import MTPForCausalLM
from wmtp.models.output import MTPOutput
from wmtp.models.targets import shift

_MOST_FOLDS = 10  # that a recipe may ask for


class ValueHead(nn.Module):
    """V, the value of a state: a norm, a hidden layer and an output that starts at zero; fp32.

    Args:
        dim: Width of the trunk's hidden state.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.hidden = nn.Linear(dim, dim)
        self.output = _zero_output(dim)

    @override
    def forward(self, hidden: Float[Tensor, "batch seq dim"]) -> Float[Tensor, "batch seq"]:
        """Return the expected reward, in deviations from its mean, after each token."""
        activated = torch.nn.functional.gelu(self.hidden(self.norm(hidden)))
        return self.output(activated).squeeze(-1)


class TokenValueHead(nn.Module):
    """Q, the value of a token in the state before it: norms, a hidden layer and an output that starts at zero; fp32.

    The state says what came before and the embedding which token was chosen; each has a norm of its own, as they are of
    very different size.

    Args:
        dim: Width of the trunk's hidden state.
        embedding_dim: Width of its input embeddings.
    """

    def __init__(self, dim: int, embedding_dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.token_norm = nn.LayerNorm(embedding_dim)
        self.hidden = nn.Linear(dim + embedding_dim, 2 * dim)
        self.output = _zero_output(2 * dim)

    @override
    def forward(
        self, before: Float[Tensor, "batch seq dim"], embedded: Float[Tensor, "batch seq embedding"]
    ) -> Float[Tensor, "batch seq"]:
        """Return the expected reward once token j is chosen, from the state before it and its embedding."""
        both = torch.cat([self.norm(before), self.token_norm(embedded)], dim=-1)
        return self.output(torch.nn.functional.gelu(self.hidden(both))).squeeze(-1)


class ValueHeads(nn.Module):
    """A head for states in each fold of the documents, and beside it one for tokens where these are valued.

    Args:
        dim: Width of the trunk's hidden state.
        embedding_dim: Width of its input embeddings; None: tokens are not valued.
        folds: How many.
    """

    def __init__(self, dim: int, embedding_dim: int | None = None, folds: int = 1) -> None:
        super().__init__()
        self.states = nn.ModuleList(ValueHead(dim) for _ in range(folds))
        tokens = [] if embedding_dim is None else [TokenValueHead(dim, embedding_dim) for _ in range(folds)]
        self.tokens = nn.ModuleList(tokens)


class WithValueHead(nn.Module):
    """A trainable model with value heads beside it; answers what the model answers, with their values.

    Args:
        model: What `trainable` returned.
        dim: Width of its hidden state.
        detach_trunk: Keep the gradient of values from the trunk.
        folds: Heads of each kind.
        values_tokens: Whether tokens are valued too, besides states.

    Raises:
        TrainingError: If tokens are to be valued, and the model has no input embeddings to read.
    """

    def __init__(
        self,
        model: MTPForCausalLM | ForeignModel,
        dim: int,
        *,
        detach_trunk: bool,
        folds: int = 1,
        values_tokens: bool = False,
    ) -> None:
        super().__init__()
        self.model = model
        self.value_heads = ValueHeads(dim, input_embeddings(model).embedding_dim if values_tokens else None, folds)
        self.detach_trunk = detach_trunk

    @override
    def forward(self, input_ids: Int[Tensor, "batch seq"], *args: Any, **kwargs: Any) -> MTPOutput:
        """Return the model's own answer with the values of its hidden states, and of its tokens."""
        output: MTPOutput = self.model(input_ids, *args, **kwargs)
        hidden = hidden_states(output, self.model)
        answer = {field.name: getattr(output, field.name) for field in fields(output)}
        # Under autocast too: small differences of values are what is used, and bf16 rounds them away.
        with torch.autocast(hidden.device.type, enabled=False):
            return MTPOutput(**answer | self._values(input_ids, self._kept_apart(hidden)))

    def _values(self, input_ids: Tensor, hidden: Tensor) -> dict[str, Tensor]:
        values = {"state_values": torch.stack([head(hidden) for head in self.value_heads.states], dim=-1)}
        if len(self.value_heads.tokens):
            before = shift(hidden, -1, 0.0)
            embedded = self._kept_apart(input_embeddings(self.model)(input_ids))
            heads = [head(before, embedded) for head in self.value_heads.tokens]
            values["token_values"] = torch.stack(heads, dim=-1)
        return values

    def _kept_apart(self, states: Tensor) -> Tensor:
        return (states.detach() if self.detach_trunk else states).float()

    def leave_out_heads(self, horizon: int) -> None:
        """Pass on to the model."""
        self.model.leave_out_heads(horizon)

    def activation_checkpointing_enable(self, *args: Any, **kwargs: Any) -> None:
        """Pass on to the model."""
        self.model.activation_checkpointing_enable(*args, **kwargs)


def without_value_head(model: MTPForCausalLM | ForeignModel | WithValueHead) -> MTPForCausalLM | ForeignModel:
    """Return the model that value heads stand on, or the model itself."""
    return model.model if isinstance(model, WithValueHead) else model


def kind_of_heads(names: Iterable[str]) -> str | None:
    """Return in words what kind of value heads the names of a state dict belong to; None: of no kind that there is."""
    given = set(names)
    if given == set(ValueHead(1).state_dict()):
        return "the value head of critic-wmtp as it was before credit for tokens, which valued states alone in one fold"
    numbers = {name.split(".")[1] for name in given if name.startswith("states.")}
    for embedding_dim, of_what in ((1, "states and tokens"), (None, "states")):
        if 0 < len(numbers) <= _MOST_FOLDS and given == set(ValueHeads(1, embedding_dim, len(numbers)).state_dict()):
            return f"value heads of {of_what} in {len(numbers)} fold{'s' * (len(numbers) > 1)}"
    return None


def hidden_states(output: MTPOutput, model: nn.Module) -> Float[Tensor, "batch seq dim"]:
    """Return the trunk's hidden states, or raise TrainingError for a model that gives none."""
    if output.hidden_states is None:
        raise TrainingError(
            f"{type(model).__name__}: the base model's class returns logits and no hidden states for a value head",
            hint="give the class forward_heads and unembedding; docs/extending.md shows both",
        )
    return output.hidden_states


def input_embeddings(model: nn.Module) -> nn.Embedding:
    """Return the embeddings of a model's input tokens, or raise TrainingError for a model that shows none."""
    inner = unwrapped(model)
    trunk = inner.trunk if isinstance(inner, MTPForCausalLM) else inner
    try:
        found = getattr(trunk, "get_input_embeddings", lambda: None)()
    except NotImplementedError:  # what transformers answers for a class of which it does not know them
        found = None
    if not isinstance(found, nn.Embedding):
        what = "no method get_input_embeddings" if found is None else f"{type(found).__name__} as input embeddings"
        raise TrainingError(
            f"{type(trunk).__name__}: the base model's class has {what}, and critic.credit token reads embeddings",
            hint="give the class a get_input_embeddings that returns its nn.Embedding, or set critic.credit: return",
        )
    return found


def has_input_embeddings(model: nn.Module) -> bool:
    """Return whether a model shows the embeddings of its input tokens."""
    try:
        input_embeddings(model)
    except TrainingError:
        return False
    return True


def _zero_output(dim: int) -> nn.Linear:
    output = nn.Linear(dim, 1)
    nn.init.zeros_(output.weight)  # before anything is learned every document is worth the mean reward
    nn.init.zeros_(output.bias)
    return output
