"""What a recipe's data section becomes: rows to learn, and rows to measure on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from wmtp.data.documents import is_held_out
from wmtp.data.kept_rows import kept_rows
from wmtp.data.rows import RowDataset
from wmtp.data.tokenized import Tokenizing, tokenized
from wmtp.errors import DataError
from wmtp.settings.recipe import Recipe

# Their first token has the position after the id of padding, which is 1 where config.json names none.
_COUNTS_FROM_PADDING = (
    "roberta", "roberta-prelayernorm", "xlm-roberta", "xlm-roberta-xl", "camembert", "data2vec-text", "ibert",
    "longformer", "luke", "mpnet", "xmod",
)  # fmt: skip


def read_corpus(
    recipe: Recipe, tokenizer: Any, where: str, columns: Mapping[str, str], *, cache_dir: str | None = None
) -> tuple[RowDataset, RowDataset | None]:
    """Read the documents of a recipe and arrange their tokens in rows.

    Args:
        recipe: Its `data` section is read.
        tokenizer: That of the base model; None when it has none.
        where: Address of the base model, for messages.
        columns: Numbers that the training documents must have: the name of the score, and the key that holds it.
        cache_dir: Where tokens and fetched files are kept; None: the cache's usual place.

    Returns:
        What is learned, and what is measured on; None where the recipe asks for no validation. Where there are several
        sources, their rows follow each other: `mixed` gives each its share.

    Raises:
        DataError: If the data or the tokenizer cannot be used.
        StorageError: If tokens cannot be kept.
    """
    if tokenizer is None:
        raise DataError(
            f"{where}: the base model has no tokenizer",
            hint="put its tokenizer.json and tokenizer_config.json beside its weights",
        )
    source, validation = recipe.data.train, recipe.data.validation
    how = Tokenizing(tokenizer, recipe.data.num_proc, cache_dir)
    kept = tokenized(source, "data.train", columns, how)
    everything, fraction = np.arange(len(kept.store)), validation.fraction if validation is not None else None
    if fraction is None:
        rows = kept_rows(kept, everything, source, name="data.train")
        if validation is None:
            return rows, None
        measured = tokenized(validation, "data.validation", {}, how)
        return rows, kept_rows(measured, np.arange(len(measured.store)), validation, name="data.validation")
    assert validation is not None
    held = is_held_out(kept.store.records["text"], fraction)
    rows = kept_rows(kept, np.flatnonzero(~held), source, name="data.train")
    return rows, kept_rows(kept, np.flatnonzero(held), validation, name="data.validation")


def check_vocabulary(rows: RowDataset, where: str, vocab_size: int) -> None:
    """Raise DataError if the tokenizer makes tokens of the data that the model does not know."""
    if (largest := rows.largest_token()) >= vocab_size:
        raise DataError(
            f"{where}: its tokenizer makes token {largest}, and the model knows {vocab_size} tokens",
            hint="put the tokenizer beside the weights that they were trained with",
        )


def check_positions(rows: RowDataset, where: str, config: Mapping[str, Any], *, name: str = "data.train") -> None:
    """Raise DataError if a document is longer than a model's config.json names positions; `name` is the data's."""
    limit, longest = position_limit(config), rows.longest_example()
    if limit is not None and longest > limit:
        raise DataError(
            f"{where}: it knows {limit} positions, and the longest document of {name} has {longest} tokens",
            hint=f"set {name}.max_length: {limit}, or less",
        )


def position_limit(config: Mapping[str, Any]) -> int | None:
    """Return how many tokens the positions that a model's config.json names are enough for; None when it names none."""
    limit = config.get("max_position_embeddings") or config.get("n_positions")
    if not isinstance(limit, int):
        return None
    padding = config.get("pad_token_id", 1)
    if config.get("model_type") in _COUNTS_FROM_PADDING and isinstance(padding, int):
        return limit - padding - 1
    return limit
