"""What commands print: results on stdout, talk on stderr, and every error in one form."""

from __future__ import annotations

import json
import traceback
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Any

import typer

from wmtp.errors import InternalError, WmtpError


class Output:
    """Where one run of the program prints; every command finds it in its context.

    Attributes:
        as_json: Print one JSON document instead of lines for a person.
        quiet: Print no talk.
        debug: Print the traceback of an error too.
    """

    def __init__(self) -> None:
        self.as_json = False
        self.quiet = False
        self.debug = False

    @classmethod
    def of(cls, context: typer.Context, *, as_json: bool = False) -> Output:
        """Return the output of this run; call it first, so that errors are in the form that was asked for."""
        output = context.ensure_object(cls)
        output.as_json = as_json
        return output

    def result(self, facts: Any, lines: Iterable[str]) -> None:
        """Print what was asked for on stdout: the facts as one JSON document, or the lines."""
        for line in [json.dumps(facts, indent=2)] if self.as_json else lines:
            typer.echo(line)

    def say(self, text: str) -> None:
        """Print talk on stderr, unless it is to be quiet."""
        if not self.quiet:
            typer.echo(text, err=True)

    def fail(self, error: WmtpError) -> None:
        """Print an error: as JSON on stdout, or as `error: ...` on stderr; with `--debug` its traceback before it.

        Both name the code about which `wmtp explain` tells more.
        """
        if self.debug:
            traceback.print_exception(error)
        if self.as_json:
            facts = {"problem": error.problem, "faults": list(error.faults), "hint": error.hint}
            named = {"type": type(error).__name__, "code": error.code}
            typer.echo(json.dumps({"error": {**named, **facts}}, indent=2))
        else:
            typer.echo(f"error: {error}\nmore: wmtp explain {error.code}", err=True)

    def fail_unexpectedly(
        self, kind: type[BaseException], error: BaseException, trace: TracebackType | None = None
    ) -> None:
        """Print what nobody foresaw; has the form of `sys.excepthook`, after which Python exits with 1."""
        internal = InternalError(
            f"internal error: {kind.__name__}: {error}",
            hint="this is a fault in wmtp: please report it with the traceback that 'wmtp --debug ...' prints",
        )
        self.fail(internal.with_traceback(trace))

    def start_logging(self) -> None:
        """Let the library's log lines appear on stderr; only commands that do long work have any."""
        import logging

        class Talk(logging.Handler):
            def emit(self, record: logging.LogRecord) -> None:
                typer.echo(self.format(record), err=True)

        handler = Talk()
        handler.setFormatter(logging.Formatter("%(message)s"))
        logger = logging.getLogger("wmtp")
        logger.handlers = [handler]
        logger.setLevel(logging.DEBUG if self.debug else logging.WARNING if self.quiet else logging.INFO)


def hush_other_libraries() -> None:
    """Keep warnings off stderr that libraries print while transformers imports them, wanted or not."""
    import logging

    # Of kernels for other machines than this one, and of what torch will not need from torchao any more.
    for name in ("bitsandbytes", "torchao", "torch.utils._pytree"):
        logging.getLogger(name).setLevel(logging.ERROR)


def table(rows: Sequence[Sequence[object]], headers: Sequence[str]) -> list[str]:
    """Return aligned lines, the headers first; nothing at all when there are no rows."""
    if not rows:
        return []
    cells = [list(headers), *([str(cell) for cell in row] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(headers))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]
