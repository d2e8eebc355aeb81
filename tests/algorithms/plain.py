"""The formulas of the algorithms once more, in plain Python: lists, loops and the math module, nothing shared.

A document is a list of (row, place) in order; a row's padding is no document. `learned[row][place]` says whether a
token is learned. Weights are a dict from (row, position, head) to a number, heads from 1.
"""

from __future__ import annotations

import math
from fractions import Fraction


def valid_pairs(documents, learned, horizon):
    """Every (row, t, k) whose token t + k is a learned one of the same document, and that token."""
    pairs = {}
    for places in documents:
        for row, t in places:
            for k in range(1, horizon + 1):
                if (row, t + k) in places and learned[row][t + k]:
                    pairs[row, t, k] = (row, t + k)
    return pairs


def learned_of(places, learned):
    return [(row, j) for row, j in places if learned[row][j]]


def num_kept(n, keep_ratio):
    return math.ceil(Fraction(repr(keep_ratio)) * n)


def kept_and_threshold(scores, tokens, keep_ratio):
    """The tokens of one group that are kept, and the score midway to the first that is not (None: all are kept)."""
    ranked = sorted(tokens, key=lambda token: (-scores[token], token))
    count = num_kept(len(ranked), keep_ratio)
    if count == len(ranked):
        return set(ranked), None
    return set(ranked[:count]), (scores[ranked[count - 1]] + scores[ranked[count]]) / 2


def sigmoid(x):
    return 1 / (1 + math.exp(-max(-30.0, min(30.0, x))))


def rho1_gates(scores, tokens, keep_ratio, temperature):
    """Gates of one group; hard ones without a temperature."""
    kept, threshold = kept_and_threshold(scores, tokens, keep_ratio)
    if temperature is None or threshold is None:
        return {token: float(token in kept) for token in tokens}
    return {token: sigmoid((scores[token] - threshold) / temperature) for token in tokens}


def mean_one(gates, pairs, prior):
    """Weights of pairs from the gates of their tokens, with a mean of 1 under the prior."""
    found = sum(prior[k - 1] * gates[token] for (_, _, k), token in pairs.items())
    wanted = sum(prior[k - 1] for _, _, k in pairs)
    return {pair: gates[token] * wanted / found if found else 1.0 for pair, token in pairs.items()}


def head_softmax(scores, pairs, prior):
    """A softmax over the heads of each position, with a mean of 1 under the prior."""
    weights = {}
    for row, t in {(row, t) for row, t, _ in pairs}:
        heads = [k for r, s, k in pairs if (r, s) == (row, t) and prior[k - 1] > 0]
        powers = {k: math.exp(scores[pairs[row, t, k]]) for k in heads}
        total = sum(prior[k - 1] * powers[k] for k in heads)
        weights |= {(row, t, k): powers[k] * sum(prior[h - 1] for h in heads) / total for k in heads}
    return weights


def errors(values, reward, tokens, gamma):
    """One-step errors of a document whose learned tokens follow each other; values by (row, place)."""
    found = {}
    for row, j in tokens:
        after = reward if (row, j) == tokens[-1] else gamma * values[row, j]
        found[row, j] = after - values[row, j - 1]
    return found


def advantages(values, reward, tokens, gamma, lambda_):
    """The sum of all later errors, each discounted by how far it is: no recursion."""
    delta = errors(values, reward, tokens, gamma)
    return {
        token: sum((gamma * lambda_) ** (n - m) * delta[tokens[n]] for n in range(m, len(tokens)))
        for m, token in enumerate(tokens)
    }


def token_credit(token_values, values, tokens):
    """Q of each learned token less V of the state before it; both by (row, place)."""
    return {(row, j): token_values[row, j] - values[row, j - 1] for row, j in tokens}


def critic_gates(advantage, temperature):
    return {token: min(5.0, max(0.1, math.exp(min(a / temperature, 700)))) for token, a in advantage.items()}


def explained(values, returns):
    def variance(xs):
        return sum((x - sum(xs) / len(xs)) ** 2 for x in xs) / len(xs)

    return 1 - variance([r - v for v, r in zip(values, returns, strict=True)]) / variance(returns)
