"""The command `score`: reference losses and rewards of the training data, before a run needs them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import typer

from wmtp.cli.options import AllowCode, AsJSON, ConfigFile, RecipeFile, consents
from wmtp.cli.output import Output
from wmtp.cli.runs import Overrides, read_settings
from wmtp.untrusted import plain

if TYPE_CHECKING:
    from wmtp.comparison.references import ReferenceLosses
    from wmtp.scoring.scores import ScoredColumn
    from wmtp.settings.config import Config
    from wmtp.settings.recipe import Recipe

_UNITS = {"nll": "nats a token", "reward": "a document", "column": "a document"}


def score(
    ctx: typer.Context,
    overrides: Overrides = None,
    *,
    config: ConfigFile,
    recipe: RecipeFile,
    allow_code: AllowCode = None,
    as_json: AsJSON = False,
) -> None:
    """Compute the reference losses or rewards that a run reads, once, and judge the reference that gives them."""
    out = Output.of(ctx, as_json=as_json)
    wanted_config, wanted_recipe = read_settings(config, recipe, overrides)
    out.start_logging()
    references, found = _scored(_with_consent(wanted_config, consents(allow_code)), wanted_recipe)
    facts = {"scores": [column.to_dict() for column in found]}
    lines = [*_lines(found, wanted_recipe.train.algo), *(line for losses in references for line in losses.lines())]
    out.result({**facts, "references": [losses.to_dict() for losses in references]}, lines)


def _with_consent(config: Config, allow_code: dict[str, str]) -> Config:
    trust = config.trust.model_copy(update={"allow_code": {**config.trust.allow_code, **allow_code}})
    return config.model_copy(update={"trust": trust})


def _scored(config: Config, recipe: Recipe) -> tuple[list[ReferenceLosses], list[ScoredColumn]]:
    from wmtp.factory import ComponentFactory, resolve_models

    algorithm = ComponentFactory.create_algorithm(recipe)
    if not algorithm.scores:
        return [], []
    from wmtp.checkpoint.contents import open_checkpoint
    from wmtp.data.corpus import read_corpus
    from wmtp.loaders.tokenizer import load_tokenizer
    from wmtp.run_plan.needs import require_quantisers
    from wmtp.scoring.references import compare_references
    from wmtp.scoring.scores import ScoringModels, score_columns

    require_quantisers(config, recipe)
    resolution = resolve_models(config, recipe)
    base = open_checkpoint(resolution.chosen["base"].uri, cache_dir=config.paths.cache_dir)
    tokenizer = load_tokenizer(base)
    columns = {score.name: score.column for score in algorithm.scores if score.column is not None}
    rows, held_out = read_corpus(recipe, tokenizer, base.where, columns, cache_dir=config.paths.cache_dir)
    models = ScoringModels.of(config, resolution, base, tokenizer)
    scored = score_columns(rows, algorithm.scores, models, name="data.train")
    return list(compare_references(rows, held_out, algorithm.scores, models, recipe.data)), scored


def _lines(found: Sequence[ScoredColumn], algorithm: str) -> Iterator[str]:
    if not found:
        yield f"nothing has to be scored before training: {algorithm}, as the recipe has it, reads no such score"
    for column in found:
        yield f"{column.score.name}: mean {column.mean:.4f} {_UNITS[column.score.what]}, {_origin(column)}"
        if column.where:
            yield f"  kept in {plain(column.where)}"


def _origin(column: ScoredColumn) -> str:
    facts: dict[str, Any] = column.to_dict()
    if column.score.what == "column":
        return f"from the key {plain(column.score.column)} of {facts['figures']:,} documents and pieces of documents"
    how = f"computed in {column.seconds:.1f} s" if column.is_computed else "computed before, and read"
    return f"{facts['figures']:,} figures by {plain(column.model)}, {how}"
