"""The models that are measured: checked all, before the first is loaded, and then loaded one after another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from wmtp.checkpoint.contents import Checkpoint, open_checkpoint
from wmtp.data.corpus import check_positions, check_vocabulary
from wmtp.data.rows import RowDataset
from wmtp.data.tokenized import tokenizer_key
from wmtp.errors import DataError, IncompatibleModelError, SettingsError, TrainingError
from wmtp.evaluation.windows import NAME, Windows, fields_as_options
from wmtp.loaders.standardized import URI, load, plan_load
from wmtp.loaders.tokenizer import load_tokenizer
from wmtp.models.adapter import check_packing
from wmtp.models.causal import CausalModel, causal_model, vocabulary_size
from wmtp.settings.loading import LoadKeywords, LoadOptions
from wmtp.storage.uri import ModelURI
from wmtp.trust.guards import scoring_errors
from wmtp.untrusted import plain


@dataclass(frozen=True)
class Subjects:
    """Models to measure, of which everything but their weights was read.

    Attributes:
        uris: Where they are.
        checkpoints: What is there.
        tokenizers: One for each.
        loading: How they are loaded.
    """

    uris: Sequence[URI]
    checkpoints: Sequence[Checkpoint]
    tokenizers: Sequence[Any]
    loading: LoadKeywords

    @classmethod
    def open(cls, named: URI | Sequence[URI], loading: LoadKeywords) -> Subjects:
        """Open models, and refuse what cannot be measured, before a weight is read.

        Args:
            named: One model or several.
            loading: As of `wmtp.load`.

        Raises:
            IncompatibleModelError: If one is no language model.
            DataError: If one has no tokenizer.
            SettingsError: If there is no model, or one lock for several.
        """
        uris = [named] if isinstance(named, str | Path | ModelURI) else list(named)
        if not uris:
            raise SettingsError("no model to evaluate is named", hint="name one model or several")
        if loading.get("lock") is not None and len(uris) > 1:
            hint = "evaluate each alone with its lock: draws are the same, and the fingerprint says whether windows are"
            raise SettingsError(f"lock pins one checkpoint, and {len(uris)} are to be evaluated", hint)
        options = LoadOptions(**loading)
        found = [open_checkpoint(uri, algorithm=options.algorithm, lock=options.lock, **options.access) for uri in uris]
        for checkpoint in found:
            _require_language_model(checkpoint)
        return cls(uris, found, [_tokenizer(checkpoint) for checkpoint in found], loading)

    def one_tokenizer(self, *, is_chat: bool) -> Any:
        """Return the tokenizer that all have; `is_chat`: chat templates make the text, and count.

        Raises:
            IncompatibleModelError: If one makes other tokens than the first.
        """
        keys = [tokenizer_key(each, with_template=is_chat) for each in self.tokenizers]
        first = self.checkpoints[0].where
        for checkpoint, key in zip(self.checkpoints[1:], keys[1:], strict=True):
            if key != keys[0]:
                raise IncompatibleModelError(
                    f"{checkpoint.where}: its tokenizer makes other tokens than that of {first}, so that losses, shares"
                    " and acceptance of the two are not of the same things",
                    hint="evaluate each by itself, and compare bits_per_byte, which does not hang on tokens",
                )
        return self.tokenizers[0]

    def prove(self, rows: RowDataset | None = None) -> None:
        """Prove that every model loads and can read these rows, so that none is found wanting after hours.

        Raises:
            WmtpError: What loading raises.
            DataError: If a model has too few positions or tokens.
        """
        for uri, checkpoint in zip(self.uris, self.checkpoints, strict=True):
            if rows is not None:
                with fields_as_options():
                    check_positions(rows, checkpoint.where, checkpoint.config, name=NAME)
                if isinstance(size := checkpoint.config.get("vocab_size"), int):
                    check_vocabulary(rows, checkpoint.where, size)
            plan_load(uri, **self.loading)

    def load(self, number: int) -> CausalModel:
        """Load a model; raises what loading raises, and IncompatibleModelError if it cannot be called."""
        model = load(self.uris[number], **self.loading).model
        with scoring_errors(self.checkpoints[number].where, "a text to try it"):
            return causal_model(model)

    def load_for(self, number: int, windows: Windows) -> CausalModel:
        """Load a model that is to read windows; raises WmtpError if it cannot."""
        checkpoint, model = self.checkpoints[number], self.load(number)
        check_vocabulary(windows.rows, checkpoint.where, vocabulary_size(model))
        if windows.measured.packing:
            _require_packing(model, checkpoint.where)
        return model


def _require_language_model(checkpoint: Checkpoint) -> None:
    if checkpoint.metadata.wmtp_type == "reward_model":
        raise IncompatibleModelError(
            f"{checkpoint.where}: a reward model, which predicts no tokens",
            hint="name a base model, a reference model, or what a run has written",
        )


def _tokenizer(checkpoint: Checkpoint) -> Any:
    tokenizer = load_tokenizer(checkpoint)
    if tokenizer is None:
        raise DataError(
            f"{checkpoint.where}: the model has no tokenizer to read text with",
            hint="put its tokenizer.json and tokenizer_config.json beside its weights",
        )
    return tokenizer


def _require_packing(model: CausalModel, where: str) -> None:
    try:
        check_packing(cast("Any", model))
    except TrainingError as error:
        raise IncompatibleModelError(
            f"{where}: {plain(error.problem)}", hint="leave packing off: figures are the same, and batches are padded"
        ) from error
