"""Which tokens have much weight and which little: single ones, and kinds of them, over all texts that were weighed."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from wmtp.report.texts import token_texts
from wmtp.report.weighed import Place, WeighedStep

_MOST_RANKED = 10
_SEEN_OFTEN = 3


def mean_weights(found: Sequence[Place], step: WeighedStep) -> dict[int, list[float]]:
    """Return for each token the weights that it has wherever it stands, each the mean over the heads that learn it."""
    seen: dict[int, list[float]] = defaultdict(list)
    for place in found:
        means = place.of(step.batches[place.batch].weights, len(place.example)).nanmean(0)
        for token, mean in zip(place.example.input_ids.tolist(), means.tolist(), strict=True):
            if not math.isnan(mean):
                seen[token].append(mean)
    return seen


def ranked(seen: Mapping[int, Sequence[float]], tokenizer: object) -> dict[str, Any]:
    """Return `ranked`, tokens with the most and the least weight on average, and `kinds` of tokens, most weight first.

    Of equal weights the more frequent token comes first. Tokens are ranked that were seen three times, if any were.
    """
    often = {token: weights for token, weights in seen.items() if len(weights) >= _SEEN_OFTEN} or seen
    half = min(_MOST_RANKED, len(often) // 2)
    orders = {"most": -1, "least": 1}
    rows = {
        name: sorted(often, key=lambda token: (sign * _mean(often[token]), -len(often[token])))[:half]
        for name, sign in orders.items()
    }
    lists = {name: [[_text(token, tokenizer), *_figures(often[token])] for token in rows[name]] for name in rows}
    return {"ranked": lists, "kinds": _by_kind(seen, tokenizer)}


def _by_kind(seen: Mapping[int, Sequence[float]], tokenizer: object) -> list[list[Any]]:
    kinds: dict[str, list[float]] = defaultdict(list)
    for token, weights in seen.items():
        kinds[kind(_text(token, tokenizer))].extend(weights)
    return [[name, *_figures(kinds[name])] for name in sorted(kinds, key=lambda name: -_mean(kinds[name]))]


def kind(text: str) -> str:
    """Return in words what kind of token a text is."""
    if not (letters := text.strip()):
        return "ends of lines, with indentation" if "\n" in text else "blanks alone"
    if letters[0].isdigit():
        return "numbers"
    return "words and parts of words" if letters[0].isalpha() or letters[0] == "_" else "punctuation and signs"


def _text(token: int, tokenizer: object) -> str:
    return token_texts(tokenizer, [token])[0]


def _figures(weights: Sequence[float]) -> tuple[int, float]:
    return len(weights), float(f"{_mean(weights):.3g}")


def _mean(weights: Sequence[float]) -> float:
    return sum(weights) / len(weights)
