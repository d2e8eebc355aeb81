"""Documents of sums modulo 5 whose answers are right or one too many, and models that know both.

A sum is `a+b=c;`: six tokens, a begin before the first and an end after the last. Which answers are right is the
business of the two benchmarks that use them. A model pretrained on such documents knows both answers to any sum.
"""

from __future__ import annotations

from pathlib import Path

import torch
from jaxtyping import Bool, Float, Int
from quality_training import Budget, Shape, new_model, train
from torch import Tensor

from wmtp.algorithms.baseline_mtp import BaselineMTP
from wmtp.data.example import Example
from wmtp.data.rows import RowDataset
from wmtp.models.mtp import MTPForCausalLM

MODULUS, TOKENS_OF_SUM = 5, 6
PLUS, EQUALS, SEMICOLON, BEGIN, END = range(MODULUS, MODULUS + 5)
FIRST_ANSWER = 5  # its place in a document
REWARD, RIGHT = "reward", "right"


def shape_of(num_sums: int, *, width: int = 32) -> Shape:
    """Return the shape of models of documents of so many sums."""
    return Shape(vocabulary=MODULUS + 5, context=num_sums * TOKENS_OF_SUM + 2, width=width)


def documents(right: Bool[Tensor, "documents sums"], draws: torch.Generator) -> Int[Tensor, "documents seq"]:
    """Return documents of random sums, whose answers are right or one too many."""
    a, b = torch.randint(MODULUS, (2, *right.shape), generator=draws).unbind()
    c = (a + b + (~right).long()) % MODULUS
    plus, equals, semicolon = (torch.full_like(a, sign) for sign in (PLUS, EQUALS, SEMICOLON))
    sums = torch.stack([a, plus, b, equals, c, semicolon], dim=2).flatten(1)
    begin, end = (torch.full((len(right), 1), sign) for sign in (BEGIN, END))
    return torch.cat([begin, sums, end], dim=1)


def answer_places(num_sums: int) -> list[int]:
    """Return where in a document its answers are."""
    return list(range(FIRST_ANSWER, num_sums * TOKENS_OF_SUM + 2, TOKENS_OF_SUM))


def right_answers(ids: Int[Tensor, "documents seq"]) -> Int[Tensor, "documents sums"]:
    """Return what the answers of documents should be."""
    return (ids[:, 1:-1:TOKENS_OF_SUM] + ids[:, 3:-1:TOKENS_OF_SUM]) % MODULUS


def rows_of(
    ids: Int[Tensor, "documents seq"], right: Bool[Tensor, "documents sums"], rewards: Float[Tensor, "documents"]
) -> RowDataset:
    """Return rows of one document each, with its reward and, at each answer, 1 if it is right and -1 if it is not."""
    marks = torch.zeros(ids.shape)
    marks[:, answer_places(right.shape[1])] = right.float() * 2 - 1
    return RowDataset(
        [
            (Example(row.int(), scores={REWARD: reward, RIGHT: mark}),)
            for row, mark, reward in zip(ids, marks, rewards, strict=True)
        ]
    )


def pretrain(ids: Int[Tensor, "documents seq"], shape: Shape, budget: Budget, seed: int, path: Path) -> MTPForCausalLM:
    """Train the model that all arms of a seed begin from on documents as they are, and keep it."""
    model = new_model(shape, seed)
    train(model, RowDataset([(Example(row.int()),) for row in ids]), BaselineMTP(), budget, seed)
    torch.save(model.state_dict(), path)
    return model


def pretrained(shape: Shape, seed: int, path: Path) -> MTPForCausalLM:
    """Return the model that `pretrain` has kept."""
    model = new_model(shape, seed)
    model.load_state_dict(torch.load(path, weights_only=True))
    return model


def probabilities(
    model: MTPForCausalLM, ids: Int[Tensor, "documents seq"], answers: Int[Tensor, "documents sums"]
) -> Float[Tensor, "documents sums"]:
    """Return how probable these answers are, each after the document as it stands before it."""
    places = torch.tensor(answer_places(answers.shape[1]))
    said: Tensor = model(ids).logits[:, places - 1, 0].softmax(-1)
    return said.gather(2, answers.unsqueeze(2)).squeeze(2)
