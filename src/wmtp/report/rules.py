"""How each run weighs its tokens, in words: the rule of its algorithm, and the prior of its heads in the loss."""

from __future__ import annotations

import json
from collections.abc import Sequence
from html import escape
from typing import Any

from wmtp.errors import WmtpError
from wmtp.factory import ComponentFactory
from wmtp.report.loose import mapping, text_of, within
from wmtp.report.saved_run import SavedRun
from wmtp.report.texts import visible
from wmtp.settings.recipe import recipe_of
from wmtp.training.run_file import RUN_FILE

_UNSAID = "How it weighs tokens its algorithm does not say, or is not known here; its settings: {}."


def rules(runs: Sequence[SavedRun]) -> str:
    """Return a part of the page: of each run what its weights are, as it had set them."""
    told = "".join(
        f"<section><h3>{escape(visible(run.name))} ({escape(algorithm_of(run))})</h3>"
        f"<p>{escape(rule(run))}</p><p>{escape(prior_in_words(run))}</p></section>"
        for run in runs
    )
    return f'<div class="rules">{told}</div>'


def algorithm_of(run: SavedRun) -> str:
    """Return the name of its algorithm."""
    return text_of(within(run.file.recipe, "train", "algo"))


def rule(run: SavedRun) -> str:
    """Return what the algorithm says of itself with the settings of a run, else these settings."""
    try:
        recipe = recipe_of(run.file.recipe, where=run.directory / RUN_FILE)
        said = ComponentFactory.create_algorithm(recipe).rule()
    except WmtpError:  # a stranger's file, or the recipe of another version: it is shown all the same
        said = ""
    return visible(said) or _UNSAID.format(_settings(run.file.recipe))


def _settings(recipe: dict[str, Any]) -> str:
    known = ("run", "data", "mtp", "train", "loss")
    own = {
        name: value for section in recipe if section not in known for name, value in mapping(recipe[section]).items()
    }
    return ", ".join(f"{visible(name)}: {text_of(value)}" for name, value in own.items()) or "none"


def prior_in_words(run: SavedRun) -> str:
    """Return what the head prior makes of weights."""
    factors = prior_factors(run)
    if not factors or len(set(factors)) == 1:
        return "All heads count the same in the loss (loss.head_prior)."
    each = ", ".join(f"head {number} {factor:.3g}" for number, factor in enumerate(factors, start=1))
    return (
        f"In the loss each weight is multiplied by the prior of its head, {short_prior(run)}: {each}. That emphasises"
        " heads, not tokens."
    )


def short_prior(run: SavedRun) -> str:
    """Return the head prior as recipes write it."""
    prior = within(run.file.recipe, "loss", "head_prior")
    return prior if prior == "uniform" else visible(json.dumps(prior).replace('"', ""))


def prior_factors(run: SavedRun) -> list[float]:
    """Return the factor of each head, with mean 1; nothing where it is not known."""
    prior, heads = within(run.file.recipe, "loss", "head_prior"), num_heads(run)
    if prior == "uniform":
        return [1.0] * heads
    decay = within(prior, "decay")
    factors = [decay**k for k in range(heads)] if _is_number(decay) else prior
    if not isinstance(factors, list) or not all(map(_is_number, factors)) or sum(factors) <= 0:
        return []
    return [factor * len(factors) / sum(factors) for factor in factors]


def num_heads(run: SavedRun) -> int:
    """Return how many heads were trained, by what was logged of them, else as planned; 0 where neither is known."""
    logged = {name for entry in run.log for name in entry if name.startswith(("eval_ce_", "ce_"))}
    numbers = [int(number) for name in logged if (number := name.rpartition("_")[2]).isdecimal()]
    found = max(numbers, default=0) or within(run.file.recipe, "mtp", "horizon")
    return found if isinstance(found, int) and 0 < found <= 1000 else 0


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and 0 <= value < 1e6
