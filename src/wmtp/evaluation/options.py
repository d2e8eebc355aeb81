"""How models are measured: what a caller may say beside how they are loaded."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from wmtp.errors import SettingsError
from wmtp.evaluation.intervals import Resampling
from wmtp.settings.loading import LoadKeywords
from wmtp.untrusted import did_you_mean, show

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

AnyOptions = TypeVar("AnyOptions", bound="DataclassInstance")


class EvaluationKeywords(LoadKeywords, total=False):
    """The keyword arguments of `evaluate`: those of `wmtp.load`, and those that `EvaluationOptions` explains."""

    format: Literal["text", "raw_text", "prompt_completion", "chat"]
    keys: Mapping[str, str]
    max_length: int
    packing: bool
    batch_size: int | None
    limit: int | None
    resamples: int
    confidence: float
    seed: int


@dataclass(frozen=True, kw_only=True)
class EvaluationOptions:
    """How models are measured.

    Attributes:
        format: What the files hold: `text`, `raw_text`, `prompt_completion` or `chat`, as in a recipe's `data.train`.
        keys: Which keys of records are read, and the `template`, by their names in a recipe's `data.train`:
            `{"prompt": "text", "completion": "code"}`.
        max_length: Tokens of a window. A longer text is cut into windows that each stand by themselves; a longer
            completion or chat loses its end.
        packing: Put several windows into a row; attention stays within each. It changes the time taken, no figure.
        batch_size: Rows that a model reads at once; None: as many as hold 4,096 tokens.
        limit: Read this many documents, from the first; None: all.
        resamples: How many times documents are drawn for intervals.
        confidence: What share of the draws an interval holds.
        seed: Of the draws.
    """

    format: str = "text"
    keys: Mapping[str, str] | None = None
    max_length: int = 1024
    packing: bool = False
    batch_size: int | None = None
    limit: int | None = None
    resamples: int = 1000
    confidence: float = 0.95
    seed: int = 0

    def __post_init__(self) -> None:
        faults = list(self._faults())
        if faults:
            raise SettingsError(
                faults[0], hint="see EvaluationOptions: whole numbers above 0, confidence within (0, 1)"
            )

    def _faults(self) -> Iterator[str]:
        for name in ("batch_size", "limit"):
            value = getattr(self, name)
            if value is not None and value < 1:
                yield f"{name} is {show(value)}, expected 1 or more"
        if self.resamples < 1:
            yield f"resamples is {show(self.resamples)}, expected 1 or more"
        if not 0 < self.confidence < 1 or math.isnan(self.confidence):
            yield f"confidence is {show(self.confidence)}, expected a share between 0 and 1"
        if self.seed < 0:
            yield f"seed is {show(self.seed)}, expected 0 or more"

    @property
    def resampling(self) -> Resampling:
        """How intervals are made."""
        return Resampling(self.resamples, self.confidence, self.seed)


def split_options(kind: type[AnyOptions], options: Mapping[str, Any], *, of: str) -> tuple[AnyOptions, LoadKeywords]:
    """Return what measuring is told, and what loading is told.

    Args:
        kind: A dataclass of what measuring may be told.
        options: Keyword arguments for both.
        of: The function that they were given to.

    Raises:
        SettingsError: If neither knows an option, or a value is none.
    """
    known, loads = [field.name for field in fields(kind)], list(LoadKeywords.__annotations__)
    for name in options:
        if name not in (*known, *loads):
            raise SettingsError(
                f"{of} has no option {show(name)}{did_you_mean(name, [*known, *loads])}",
                hint=f"it has {', '.join(known)}, and those of wmtp.load",
            )
    loading: Any = {name: value for name, value in options.items() if name in loads}
    return kind(**{name: value for name, value in options.items() if name in known}), loading
