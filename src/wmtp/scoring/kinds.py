"""Models that score: what each kind refuses before anything is computed, what it is given, and what it answers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import override

from wmtp.algorithms.base import Score
from wmtp.checkpoint.contents import Checkpoint
from wmtp.checkpoint.tokenizer import tokenizer_fingerprint
from wmtp.data.corpus import check_positions, check_vocabulary, position_limit
from wmtp.data.rows import RowDataset
from wmtp.errors import DataError, IncompatibleModelError
from wmtp.loaders.tokenizer import load_tokenizer
from wmtp.models.causal import causal_model, vocabulary_size
from wmtp.scoring.labels import check_label, declared_labels
from wmtp.scoring.nll import token_losses
from wmtp.scoring.rewards import Rewards
from wmtp.trust.guards import scoring_errors
from wmtp.untrusted import show

# From ids of several texts to figures of each: one a token, or one.
Answer = Callable[[Sequence[Tensor]], list[Tensor]]
Load = Callable[[], nn.Module]


@dataclass(frozen=True)
class Scored:
    """A score, and what it is computed with.

    Attributes:
        score: What the algorithm asks for.
        checkpoint: The scoring model.
        base: The model to train, which has tokenized the data.
        tokenizer: Its tokenizer.
        name: What the data is called in messages: `data.train`.
    """

    score: Score
    checkpoint: Checkpoint
    base: Checkpoint
    tokenizer: Any
    name: str

    @cached_property
    def shares_tokenizer(self) -> bool:
        """Whether the files of both tokenizers show that they make the same ids of a text."""
        own, given = (tokenizer_fingerprint(model.store) for model in (self.checkpoint, self.base))
        return own is not None and given is not None and own.sha256 == given.sha256


class Kind(ABC):
    """One kind of score.

    Attributes:
        per_token: Whether it is a figure for each token, or one for each document.
        learns_of_padding: Whether the first batch of several lengths decides how later ones are answered.
    """

    per_token: bool
    learns_of_padding = False

    def __init__(self, scored: Scored) -> None:
        self.scored = scored

    @abstractmethod
    def check(self, rows: RowDataset) -> None:
        """Refuse a model that cannot score these rows; opens no weights.

        Raises:
            IncompatibleModelError: If it is not the kind of model that is needed.
            DataError: If the rows are more than it can take.
        """

    @abstractmethod
    def texts(self, rows: RowDataset) -> Sequence[Tensor]:
        """Return what the model reads: the ids of each example, in order; raises DataError for what it cannot read."""

    @abstractmethod
    def load(self, load: Load, rows: RowDataset, device: str) -> Answer:
        """Load the model, and return what answers texts."""


class TokenLoss(Kind):
    """-log P(x_j | x_<j) in nats."""

    per_token = True

    @override
    def check(self, rows: RowDataset) -> None:
        if not self.scored.shares_tokenizer:
            _refuse_tokenizer(self.scored)
        where, config = self.scored.checkpoint.where, self.scored.checkpoint.config
        check_positions(rows, where, config, name=self.scored.name)
        if isinstance(size := config.get("vocab_size"), int):
            check_vocabulary(rows, where, size)

    @override
    def texts(self, rows: RowDataset) -> Sequence[Tensor]:
        return rows.table.texts

    @override
    def load(self, load: Load, rows: RowDataset, device: str) -> Answer:
        where, loaded = self.scored.checkpoint.where, load()
        with scoring_errors(where, "a text to try it"):
            model = causal_model(loaded)
            check_vocabulary(rows, where, vocabulary_size(model))
        return lambda texts: token_losses(model, texts, torch.device(device))


class Reward(Kind):
    """What a model with one output says of a whole document."""

    per_token = False
    learns_of_padding = True

    @override
    def check(self, rows: RowDataset) -> None:
        scored = self.scored
        refuse_online(scored.score)
        check_label(scored.checkpoint.where, declared_labels(scored.checkpoint), scored.score.label)
        if scored.shares_tokenizer:
            check_positions(rows, scored.checkpoint.where, scored.checkpoint.config, name=scored.name)
            if isinstance(size := scored.checkpoint.config.get("vocab_size"), int):
                check_vocabulary(rows, scored.checkpoint.where, size)

    @override
    def texts(self, rows: RowDataset) -> Sequence[Tensor]:
        ids = rows.table.texts
        if self.scored.shares_tokenizer:
            return ids
        # To the byte: some tokenizers would take spaces before punctuation away.
        decoded = self.scored.tokenizer.batch_decode(
            list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        texts = self._encoded(decoded)
        self._check_texts(texts)
        return texts

    @override
    def load(self, load: Load, rows: RowDataset, device: str) -> Answer:
        return Rewards(load().to(device), self.scored.checkpoint.where, self.scored.score.label, device)

    def _encoded(self, texts: list[str]) -> list[Tensor]:
        tokenizer = load_tokenizer(self.scored.checkpoint)
        if tokenizer is None:
            raise IncompatibleModelError(
                f"{self.scored.checkpoint.where}: the reward model has no tokenizer",
                hint="put its tokenizer.json and tokenizer_config.json beside its weights",
            )
        return [torch.tensor(ids, dtype=torch.int32) for ids in tokenizer(texts, verbose=False)["input_ids"]]

    def _check_texts(self, texts: Sequence[Tensor]) -> None:
        config, where = self.scored.checkpoint.config, self.scored.checkpoint.where
        largest, size = max(int(text.max()) for text in texts if len(text)), config.get("vocab_size")
        if isinstance(size, int) and largest >= size:
            raise DataError(
                f"{where}: its tokenizer makes token {largest}, and the model knows {size} tokens",
                hint="put the tokenizer beside the weights that they were trained with",
            )
        limit = position_limit(config)
        for number, text in enumerate(texts, start=1):
            if len(text) == 0 or (limit is not None and len(text) > limit):
                raise DataError(
                    f"{self.scored.name}: document {number} has {len(text)} tokens of the reward model's tokenizer, and"
                    f" {where} takes 1 to {limit}",
                    hint=f"lower {self.scored.name}.max_length, or leave the document out",
                )


KINDS: dict[str, type[Kind]] = {"nll": TokenLoss, "reward": Reward}


def refuse_online(score: Score) -> None:
    """Raise IncompatibleModelError for a reward that is to be computed while training."""
    if score.online and score.what != "nll":
        raise IncompatibleModelError(
            f"the score {show(score.name)} is a reward that is to be computed while training, and rewards are computed"
            " before",
            hint="set online: false in the algorithm's section of the recipe",
        )


def _refuse_tokenizer(scored: Scored) -> None:
    models = {"scoring": scored.checkpoint, "base": scored.base}
    found = {name: tokenizer_fingerprint(model.store) for name, model in models.items()}
    for name, model in models.items():
        if found[name] is None:
            raise IncompatibleModelError(
                f"{model.where}: the {name} model has no tokenizer.json, so nothing shows that token ids mean the same"
                " to both models",
                hint="put the tokenizer.json beside its weights that they were trained with",
            )
    own, given = (info.sha256[:12] for info in found.values() if info is not None)
    raise IncompatibleModelError(
        f"{scored.checkpoint.where}: its tokenizer is {own}..., that of the base model {scored.base.where} is"
        f" {given}...; token by token, they cannot be compared",
        hint="name a reference model with the base model's tokenizer.json; an equal size of vocabulary is not enough",
    )
