"""Random batches for the algorithms: packed rows with prompts and padding, or one padded document a row."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

import torch
from torch.nn.functional import pad

from algorithms.plain import valid_pairs
from wmtp.algorithms.signals import Signals
from wmtp.algorithms.weighting import head_prior
from wmtp.models.targets import IGNORE, head_targets

PRIORS = ("uniform", {"decay": 0.5}, [0.0, 2.0, 1.0])


@dataclass(frozen=True)
class Case:
    """Signals, and what the plain formulas need of them: documents as lists of (row, place), learned tokens."""

    signals: Signals
    documents: list
    learned: list

    @property
    def pairs(self):
        return valid_pairs(self.documents, self.learned, self.signals.valid.shape[2])

    def with_signals(self, **changes) -> Case:
        return replace(self, signals=replace(self.signals, **changes))


def lengths_of(rng: random.Random, length: int, packed: bool) -> list[int]:
    lengths = [rng.randint(2, length)]
    while packed and length - sum(lengths) >= 4 and rng.random() < 0.8:
        lengths.append(rng.randint(2, length - sum(lengths)))
    return lengths


def random_case(seed: int, *, rows: int = 3, length: int = 14, horizon: int = 3, packed: bool = True) -> Case:
    """A batch of `rows` rows; document ids begin at 0 in every row, and padding has one of its own."""
    rng = random.Random(seed)
    ids = torch.zeros(rows, length, dtype=torch.long)
    learned = [[False] * length for _ in range(rows)]
    rewards, documents = torch.zeros(rows, length), []
    for row in range(rows):
        start = 0
        lengths = lengths_of(rng, length, packed)
        ids[row] = len(lengths)
        for number, size in enumerate(lengths):
            prompt = rng.randint(1, size - 1)  # the first token is never learned
            ids[row, start : start + size] = number
            rewards[row, start + 1 : start + size] = rng.uniform(-1, 1)
            learned[row][start + prompt : start + size] = [True] * (size - prompt)
            documents.append([(row, place) for place in range(start, start + size)])
            start += size
    return Case(_signals(ids, learned, rewards, horizon, seed), documents, learned)


def _signals(ids, learned, rewards, horizon, seed):
    generator = torch.Generator().manual_seed(seed)
    shape = ids.shape
    valid = head_targets(torch.where(torch.tensor(learned), 1, IGNORE), horizon, ids) != IGNORE
    return Signals(
        ce=torch.rand(*shape, horizon, generator=generator) * 6 * valid,
        valid=valid,
        prior=head_prior(PRIORS[seed % 3] if horizon == 3 else "uniform", horizon),
        document_ids=ids,
        scores={"ref_nll": torch.rand(shape, generator=generator) * 6, "reward": rewards},
        values=torch.randn(*shape, 2, generator=generator),
        token_values=torch.randn(*shape, 2, generator=generator),
        folds=(ids + torch.arange(len(ids)).unsqueeze(1)) % 2,
    )


def as_dict(tensor: torch.Tensor, keys) -> dict:
    """The entries of a tensor [batch, seq] by (row, place), or of weights by (row, position, head from 1)."""
    rows = tensor.tolist()
    return {key: rows[key[0]][key[1]] if len(key) == 2 else rows[key[0]][key[1]][key[2] - 1] for key in keys}


def rows_of(case: Case, chosen: slice) -> Signals:
    """The signals of some rows of a batch."""
    s = case.signals
    return replace(
        s, ce=s.ce[chosen], valid=s.valid[chosen], document_ids=s.document_ids[chosen], values=s.values[chosen],
        token_values=s.token_values[chosen], folds=s.folds[chosen],
        scores={name: score[chosen] for name, score in s.scores.items()},
    )  # fmt: skip


def padded(case: Case, columns: int = 3, rows: int = 1) -> Signals:
    """The same batch with more padding, behind every row and as whole rows; scores there are what must not matter."""
    s, cells = case.signals, (0, columns, 0, rows)
    return replace(
        s, ce=pad(s.ce, (0, 0, *cells)), valid=pad(s.valid, (0, 0, *cells)),
        document_ids=pad(s.document_ids, cells, value=99), values=pad(s.values, (0, 0, *cells), value=7.0),
        token_values=pad(s.token_values, (0, 0, *cells), value=-7.0), folds=pad(s.folds, cells, value=1),
        scores={name: pad(score, cells, value=-50.0) for name, score in s.scores.items()},
    )  # fmt: skip
