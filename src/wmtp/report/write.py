"""From directories of runs to one HTML file."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import wmtp
from wmtp.report.page import page
from wmtp.report.rules import algorithm_of, prior_factors
from wmtp.report.saved_run import SavedRun
from wmtp.report.texts import visible
from wmtp.storage.replace import replace_file
from wmtp.untrusted import plain
from wmtp.wording import counted, size

REPORT_FILE = "report.html"


@dataclass(frozen=True)
class Report:
    """A report that was written.

    Attributes:
        path: The file.
        num_bytes: Its size.
        runs: The runs in it, by name.
        steps: Of each run the steps whose tokens are in it.
        documents: Of each run how many texts are in it.
    """

    path: Path
    num_bytes: int
    runs: tuple[str, ...]
    steps: tuple[tuple[int, ...], ...]
    documents: tuple[int, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the facts as plain JSON values."""
        return {**vars(self), "path": str(self.path)}

    def summary(self) -> Iterator[str]:
        """Yield the facts in lines for a person."""
        for name, steps, documents in zip(self.runs, self.steps, self.documents, strict=True):
            listed = ", ".join(map(str, steps))
            what = f"weights of {counted(documents, 'text')} after steps {listed}" if steps else "without tokens"
            yield f"{plain(name)}: {what}"
        yield f"wrote {self.path} ({size(self.num_bytes)}); open it in a browser"


def write_report(runs: Sequence[str | Path], output: str | Path | None = None, *, xray: Any = None) -> Report:
    """Write one HTML file about runs, in place of one that is there.

    Args:
        runs: Their directories, `<paths.output_dir>/<run.name>`.
        output: The file; None: `report.html` in the directory of the run, or beside those of several.
        xray: Which tokens it shows, an `XRayOptions`; None: none, and no model is loaded.

    Raises:
        TrainingError: If a directory is no run's, or has no checkpoint whose tokens could be weighed.
        WmtpError: If a checkpoint, the data or a model that scores cannot be read any more.
        StorageError: If the file cannot be written.
    """
    directories = [Path(run) for run in runs]
    place = directories[0] if len(directories) == 1 else directories[0].absolute().parent
    path = Path(output) if output is not None else place / REPORT_FILE
    saved = [SavedRun.read(directory, name) for directory, name in zip(directories, names(directories), strict=True)]
    drawn = [_drawn(run, xray) for run in saved]
    text = page(saved, drawn, version=wmtp.__version__, with_xray=xray is not None).encode()
    replace_file(path, text)
    return Report(
        path=path,
        num_bytes=len(text),
        runs=tuple(run.name for run in saved),
        steps=tuple(tuple((facts["xray"] or {}).get("steps", ())) for facts in drawn),
        documents=tuple(len((facts["xray"] or {}).get("documents", ())) for facts in drawn),
    )


def names(directories: Sequence[Path]) -> list[str]:
    """Return what runs are called: the names of their directories, with as much before these as tells them apart."""
    parts = [directory.absolute().parts for directory in directories]
    longest = max(map(len, parts))
    length = next(n for n in range(1, 1 + longest) if n == longest or _differ(parts, n))
    called = ["/".join(each[-length:]) for each in parts]
    # The same run may be named twice: then it is counted.
    return [name if called.count(name) == 1 else f"{name} ({number})" for number, name in enumerate(called, start=1)]


def _differ(parts: Sequence[tuple[str, ...]], length: int) -> bool:
    return len({each[-length:] for each in parts}) == len(set(parts))


def _drawn(run: SavedRun, options: Any) -> dict[str, Any]:
    log = [{name: _finite(value) for name, value in entry.items()} for entry in run.log]
    return {
        "name": visible(run.name),
        "algorithm": algorithm_of(run),
        "prior": prior_factors(run),
        "explained": _explained(run),
        "log": log,
        "xray": _xray(run, options),
    }


def _explained(run: SavedRun) -> list[float | None]:
    outcome = run.file.result
    return [_finite(share) for share in (outcome.explained_variance if outcome else None) or []]


def _xray(run: SavedRun, options: Any) -> dict[str, Any] | None:
    if options is None:
        return None
    from wmtp.report.xray import xray  # torch and transformers, which a report without tokens does not need

    return xray(run, options)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
