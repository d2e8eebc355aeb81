"""The figures beside every token that an algorithm reads: computed before training and kept, or while training."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import torch
from jaxtyping import Float
from torch import Tensor

from wmtp.algorithms.base import RoleName, Score
from wmtp.checkpoint.contents import Checkpoint, open_checkpoint
from wmtp.data.example import Batch
from wmtp.data.rows import RowDataset
from wmtp.data.token_store import Array
from wmtp.devices import DType, training_device, training_dtype
from wmtp.factory import Resolution, create_model_loader
from wmtp.load_plan.parameters import target_dtype
from wmtp.loaders.base import LoadResult
from wmtp.models.causal import causal_model
from wmtp.scoring.fingerprint import model_fingerprint, tokenizer_identity
from wmtp.scoring.kinds import KINDS, Answer, Kind, Scored, refuse_online
from wmtp.scoring.online import OnlineLosses
from wmtp.scoring.quantised import quantise
from wmtp.scoring.ranks import Ranks
from wmtp.scoring.store import ScoreKey, ScoreStore
from wmtp.scoring.work import compute
from wmtp.settings.config import Config, Devices
from wmtp.settings.quantize import Bits

logger = logging.getLogger("wmtp")

SCORES_DIRECTORY = "scores"


@dataclass(frozen=True)
class ScoringModels:
    """Which models score, how they are loaded, and where their figures are kept.

    Attributes:
        config: Device, dtype, cache and consent, as the operator gave them.
        uris: Address of the model in each role.
        base: The model to train, which tokenizes the data.
        tokenizer: Its tokenizer (a `PreTrainedTokenizerBase`).
        directory: Where figures are kept; runs share it.
    """

    config: Config
    uris: Mapping[RoleName, str]
    base: Checkpoint
    tokenizer: Any
    directory: Path

    @classmethod
    def of(cls, config: Config, resolution: Resolution, base: Checkpoint, tokenizer: Any) -> Self:
        """Return the models that were picked for a recipe; figures are kept in `<paths.output_dir>/scores`."""
        uris: dict[Any, str] = {role: found.uri for role, found in resolution.chosen.items()}
        return cls(config, uris, base, tokenizer, Path(config.paths.output_dir) / SCORES_DIRECTORY)

    @property
    def device(self) -> str:
        """Where models score."""
        return training_device(self.config.devices)

    @property
    def dtype(self) -> DType:
        """In which they score: as the model to train is loaded, so that losses can be compared."""
        return training_dtype(self.config.devices)

    def open(self, score: Score) -> Checkpoint:
        """Return the model that gives a score, without its weights."""
        return open_checkpoint(self._uri(score), cache_dir=self.config.paths.cache_dir)

    def bits(self, score: Score) -> Bits | None:
        """Return into how many bits the weights of the model are put; None: none fewer than they are loaded in."""
        return self.config.devices.quantize.of(score.role)

    def load(self, score: Score, device: str) -> LoadResult:
        """Return the model that gives a score, in fewer bits where the operator says so."""
        bits = self.bits(score)
        devices = Devices(device=device if bits is None else "cpu", dtype=self.dtype)
        loader = create_model_loader(self.config.model_copy(update={"devices": devices}))
        loaded: LoadResult = loader.load(self._uri(score))
        if bits is None:
            return loaded
        logger.info("%s: its linear layers are put into %s", loaded.checkpoint.where, bits)
        return replace(loaded, model=quantise(loaded.model, bits, device, loaded.checkpoint.where))

    def _uri(self, score: Score) -> str:
        assert score.role is not None  # only a column of the data has none
        return self.uris[score.role]


@dataclass(frozen=True)
class ScoredColumn:
    """Figures of one score, and how they were come by.

    Attributes:
        score: The score.
        where: The directory that keeps them; empty for a column of the data.
        model: Address of the scoring model; empty for a column of the data.
        is_computed: Whether any was computed just now; else all were there.
        figures: How many there are.
        mean: Over documents; for a figure a token over tokens, without the first of each document, which has none.
        seconds: It took.
        all_figures: Those of all examples, in order.
        lengths: Tokens of each example, where there is a figure for each of them; None where there is one for all.
    """

    score: Score
    where: str
    model: str
    is_computed: bool
    figures: int
    mean: float
    seconds: float
    all_figures: Float[Tensor, "figures"] = field(repr=False)
    lengths: Array | None = field(default=None, repr=False)

    @property
    def values(self) -> list[Tensor]:
        """The figures of each example."""
        return list(self.all_figures if self.lengths is None else self.all_figures.split(self.lengths.tolist()))

    def to_dict(self) -> dict[str, Any]:
        """Return the facts as plain JSON values, without the figures."""
        return {"name": self.score.name, "what": self.score.what} | {
            name: value for name, value in vars(self).items() if name not in ("score", "all_figures", "lengths")
        }


def score_rows(rows: RowDataset, scores: Sequence[Score], models: ScoringModels, *, name: str) -> RowDataset:
    """Attach every score that is computed before training; computes what is not kept yet.

    Every score is checked before the first is computed, those for `online_scorers` too. Several processes may call it
    at once: those of one run compute a share each, others wait for the figures.

    Args:
        rows: The training data; scores that are columns of it are already there.
        scores: What the algorithm reads.
        models: What scores.
        name: What the data is called in messages: `data.train`.

    Raises:
        IncompatibleModelError: If a model cannot give its score, or its tokenizer differs from that of the base model.
        DataError: If a document is too long for a model, or a figure is not finite.
    """
    for column in score_columns(rows, scores, models, name=name):
        if column.score.what != "column":
            rows = rows.with_figures(column.score.name, column.all_figures, per_token=column.lengths is not None)
    return rows


def score_columns(rows: RowDataset, scores: Sequence[Score], models: ScoringModels, *, name: str) -> list[ScoredColumn]:
    """Return the figures of every score that is known before training; takes and raises what `score_rows` does."""
    kinds = {score: checked_kind(rows, score, models, name) for score in scores if score.what != "column"}
    return [
        _kept_or_computed(rows, kinds[score], models) if score in kinds else _of_data(rows, score)
        for score in scores
        if not score.online
    ]


def online_scorers(
    scores: Sequence[Score], models: ScoringModels, device: str | torch.device
) -> dict[str, Callable[[Batch], Float[Tensor, "batch seq"]]]:
    """Return what computes the scores that are asked for while training, by name; `score_rows` has checked them.

    Args:
        scores: What the algorithm reads.
        models: What scores; loaded here, frozen, and kept in memory.
        device: Where batches are.

    Raises:
        IncompatibleModelError: If a reward is to be computed while training.
    """
    for score in scores:
        refuse_online(score)
    loaded = {score.name: models.load(score, str(device)) for score in scores if score.online}
    return {name: OnlineLosses(causal_model(each.model), each.checkpoint.where) for name, each in loaded.items()}


def checked_kind(rows: RowDataset, score: Score, models: ScoringModels, name: str) -> Kind:
    """Return what gives a score to rows; raises what `score_rows` does for a model that cannot."""
    kind = KINDS[score.what](Scored(score, models.open(score), models.base, models.tokenizer, name))
    kind.check(rows)
    return kind


def _kept_or_computed(rows: RowDataset, kind: Kind, models: ScoringModels) -> ScoredColumn:
    started, where, ranks = time.monotonic(), kind.scored.checkpoint.where, Ranks()
    size = rows.num_tokens if kind.per_token else len(rows.lengths)
    key = ranks.each(lambda: _key(rows, kind, models))
    ranks.require_same(asdict(key))
    store = ScoreStore(models.directory, key, size)
    figures, is_computed = ranks.of_first(store.read), False
    if figures is None:
        with ranks.turn(store.turn):
            figures = ranks.of_first(store.read)
            if figures is None:
                figures, is_computed = _computed(rows, kind, models, store, ranks), True
    logger.info("%s by %s: %s in %s", kind.scored.score.what, where, "kept" if is_computed else "found", store.path)
    count = size - len(rows.lengths) if kind.per_token else size
    mean = float(figures.sum(dtype=torch.float64)) / max(count, 1)
    seconds, lengths = time.monotonic() - started, rows.lengths if kind.per_token else None
    score = kind.scored.score
    return ScoredColumn(score, str(store.path), where, is_computed, size, mean, seconds, figures, lengths)


def _key(rows: RowDataset, kind: Kind, models: ScoringModels) -> ScoreKey:
    checkpoint = kind.scored.checkpoint
    return ScoreKey(
        what=kind.scored.score.what,
        model=model_fingerprint(checkpoint, models.directory / "models"),
        dtype=str(target_dtype(checkpoint.tensors, models.dtype)).removeprefix("torch."),
        label=kind.scored.score.label,
        tokenizer=tokenizer_identity(models.base.store),
        data=rows.fingerprint(),
        max_length=rows.longest_example(),
        quantized=models.bits(kind.scored.score),
    )


def _computed(rows: RowDataset, kind: Kind, models: ScoringModels, store: ScoreStore, ranks: Ranks) -> Tensor:
    def loaded() -> tuple[Sequence[Tensor], Answer]:
        texts, device = kind.texts(rows), models.device
        return texts, kind.load(lambda: models.load(kind.scored.score, device).model, rows, device)

    texts, answer = ranks.each(loaded)
    figures = compute(texts, answer, kind, store, ranks)
    about = {"uri": kind.scored.checkpoint.where, "base": models.base.where, "documents": len(texts)}
    about |= {"figures": len(figures), "torch": torch.__version__}
    ranks.each(lambda: store.publish(figures, about) if ranks.is_first else None)
    return figures


def _of_data(rows: RowDataset, score: Score) -> ScoredColumn:
    values = rows.document_scores()[score.name]
    mean = float(values.double().mean())
    return ScoredColumn(
        score, "", "", is_computed=False, figures=len(values), mean=mean, seconds=0.0, all_figures=values
    )
