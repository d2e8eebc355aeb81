"""Measuring models on text: losses, shares, acceptance and their intervals."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from typing_extensions import Unpack

from wmtp.errors import SettingsError
from wmtp.evaluation.estimates import Figures, differences, model_result
from wmtp.evaluation.measuring import measure
from wmtp.evaluation.models import Subjects
from wmtp.evaluation.options import EvaluationKeywords, EvaluationOptions, split_options
from wmtp.evaluation.results import Evaluation
from wmtp.evaluation.windows import read_windows
from wmtp.loaders.standardized import URI


def evaluate(
    uris: URI | Sequence[URI], data: str | Path | Sequence[str | Path], **options: Unpack[EvaluationKeywords]
) -> Evaluation:
    """Measure one model or several on the same windows of text; losses and shares are means over tokens.

    Text is read, cut and masked as training does it: head k at token t has a target where token t + k is learned and
    of the same document. Nothing of a model stays in memory when the next is loaded.

    Args:
        uris: Models that `wmtp.load` takes, plain causal language models too; all of one tokenizer.
        data: Files, directories, patterns or addresses, as in a recipe's `data.train.files`.
        **options: See `EvaluationOptions`, and `LoadOptions` for how models are loaded.

    Raises:
        WmtpError: If a model does not load or cannot read the text, or the text cannot be used; everything that can be
            known beforehand is, before the first model is loaded.
    """
    chosen, loading = split_options(EvaluationOptions, options, of="evaluate")
    files = [data] if isinstance(data, str | Path) else list(data)
    if not files:
        raise SettingsError("no data to evaluate on is named", hint="name files, directories or patterns")
    subjects = Subjects.open(uris, loading)
    tokenizer = subjects.one_tokenizer(is_chat=chosen.format == "chat")
    windows = read_windows(files, chosen, tokenizer, loading.get("cache_dir"))
    subjects.prove(windows.rows)
    results, found = [], []
    for number, checkpoint in enumerate(subjects.checkpoints):
        model = subjects.load_for(number, windows)
        dtype = str(next(model.parameters()).dtype).removeprefix("torch.")
        sums = measure(model, windows, chosen.batch_size, checkpoint.where)
        del model
        found.append(Figures.of(sums, windows.num_bytes, chosen.resampling))
        results.append(model_result(checkpoint.where, dtype, sums, found[-1]))
    names = [result.model for result in results]
    return Evaluation(windows.measured, results, differences(names, found), chosen.resampling)
