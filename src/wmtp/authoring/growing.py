"""What heads of any kind are grown on, and what is said of the result."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from wmtp.errors import CheckpointError, DataError
from wmtp.loaders.base import LoadResult
from wmtp.models.heads import HeadType
from wmtp.models.mtp import MTPForCausalLM

GrownType = HeadType | Literal["deepseek"]
_MAX_SAMPLE_TOKENS = 512
_RANDOM_TOKENS = 64
SAMPLE_TEXT = """\
A language model reads text from left to right and says, at each place, how probable every possible next word is.
Predicting several words at once is harder: the second word depends on the first, which is not known yet. A model that
can do it has to plan a little, and a program can then check several words in one step, which makes writing faster.
"""
_OTHERS = {"deepseek": "the module has to be trained before it drafts anything"}


@dataclass(frozen=True)
class GrowReport:
    """What `grow` made, measured before it was written.

    Attributes:
        path: The new checkpoint.
        num_heads: Heads, counting the next-token head.
        head_type: What heads 2..H are.
        num_parameters: Of the new model, tied ones counted once.
        num_new_parameters: Of the heads.
        sample: What the cross-entropies were measured on.
        cross_entropy: Of each head at step 0 on the sample, nats per token.
    """

    path: str
    num_heads: int
    head_type: GrownType
    num_parameters: int
    num_new_parameters: int
    sample: str
    cross_entropy: tuple[float, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain JSON values."""
        return asdict(self)

    def summary(self) -> list[str]:
        """Return the report in a few lines for a person."""
        sizes = f"{self.num_parameters:,} parameters, {self.num_new_parameters:,} of them new"
        lines = [
            f"{self.path}: {self.num_heads} heads ({self.head_type}), {sizes}",
            "head 1 is bit-equal to the source, and "
            + _OTHERS.get(self.head_type, "every other head is equal to head 1"),
            f"cross-entropy at step 0 on {self.sample}, nats per token:",
        ]
        return lines + [f"  head {k}: {ce:.4f}" for k, ce in enumerate(self.cross_entropy, start=1)]


def causal_lm(loaded: LoadResult) -> PreTrainedModel:
    """Return what was loaded; raises CheckpointError where it is no plain causal LM."""
    model: nn.Module = loaded.model
    where = f"{loaded.checkpoint.where}/metadata.json"
    if isinstance(model, PreTrainedModel) and model.get_output_embeddings() is not None and model.can_generate():
        return model
    hint = "name a checkpoint that loads as a causal language model of transformers, such as LlamaForCausalLM"
    if isinstance(model, MTPForCausalLM):
        hint = f"it has heads: grow others on its trunk, which 'wmtp export {loaded.checkpoint.where} TRUNK' writes"
    raise CheckpointError(f"{where}: loads as {type(model).__name__}, which is no plain causal LM", hint=hint)


def sample(trunk: PreTrainedModel, tokenizer: Any, text: str, heads: int) -> tuple[Tensor, str]:
    """Return token ids `[1, seq]` of a text, or random ones without a tokenizer, and which of the two they are."""
    embeddings: Any = trunk.get_input_embeddings()
    unembedding: Any = trunk.get_output_embeddings()
    # Some models have further rows for what is no token that could be said, of images, say.
    vocab_size = min(len(part.weight) for part in (embeddings, unembedding) if hasattr(part, "weight"))
    if tokenizer is None:
        generator = torch.Generator().manual_seed(0)
        ids = torch.randint(0, vocab_size, (1, _RANDOM_TOKENS), generator=generator)
    else:
        ids = tokenizer(text, return_tensors="pt").input_ids
    limit = getattr(trunk.config.get_text_config(), "max_position_embeddings", None) or _MAX_SAMPLE_TOKENS
    ids = ids[:, : min(limit, _MAX_SAMPLE_TOKENS)]
    num_tokens = ids.shape[1]
    if num_tokens <= heads or int(ids.max()) >= vocab_size:
        raise DataError(
            f"the sample has {num_tokens} tokens, for {heads} heads; the vocabulary has {vocab_size}",
            hint="give a longer sample_text; if it is long enough, the tokenizer belongs to a larger vocabulary",
        )
    said = (
        f"{num_tokens} random tokens (there is no tokenizer)" if tokenizer is None else f"{num_tokens} tokens of text"
    )
    return ids.to(next(trunk.parameters()).device), said
