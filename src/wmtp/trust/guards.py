"""What code that is not ours raises and prints: it becomes our own error, and silence."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from traceback import walk_tb
from types import FrameType

from wmtp.errors import CheckpointError, IncompatibleModelError, PlanError, TrustError, WmtpError
from wmtp.untrusted import plain, show


@contextmanager
def broken_promise(where: str) -> Iterator[None]:
    """Turn whatever consented code raises, `SystemExit` and `KeyboardInterrupt` included, into a TrustError."""
    try:
        with quiet_transformers:
            yield
    except BaseException as error:
        if isinstance(error, PlanError | TrustError) and _is_ours(error):
            raise  # no consent, or more than the tensors can fill
        raise TrustError(
            f"{where}: the code raised {_shown(error)}",
            hint="this is an error in the checkpoint's own code: mend it there, then agree to the new file",
        ) from error


@contextmanager
def construction_errors(where: str, what: str = "the model") -> Iterator[None]:
    """Turn whatever a library raises while it builds something into a CheckpointError.

    Args:
        where: The file that it is built from.
        what: What is built, as the error says it.
    """
    try:
        with quiet_transformers:
            yield
    except (KeyboardInterrupt, SystemExit):
        raise
    except WmtpError as error:
        directory = where[: where.rfind("/") + 1]
        if error.problem.startswith(directory):
            raise
        # Classes of ours know what is wrong and whether metadata.json says it, but not where the files are.
        place = directory if error.problem.startswith("metadata.json: ") else f"{where}: "
        raise type(error)(f"{place}{error.problem}", error.hint, error.faults) from error
    except BaseException as error:  # libraries raise every kind; those written in Rust a BaseException of their own
        raise CheckpointError(
            f"{where}: {what} cannot be built: {_shown(error)}",
            hint="compare the file with the one that the weights were saved with",
        ) from error


@contextmanager
def scoring_errors(where: str, what: str) -> Iterator[None]:
    """Turn whatever a model of others raises while it scores into an IncompatibleModelError.

    Args:
        where: The model.
        what: What it was given: the documents.
    """
    try:
        yield
    except (KeyboardInterrupt, WmtpError):
        raise
    except BaseException as error:  # its own code raises what it likes, SystemExit included
        raise IncompatibleModelError(
            f"{where}: it raised {_shown(error)} on {what}",
            hint="check that its positions and its vocabulary reach that far and that it fits into memory; code of its"
            " own is mended where it comes from",
        ) from error


@contextmanager
def answering_errors(where: str, what: str) -> Iterator[None]:
    """Turn whatever a model of transformers raises when it is asked into a CheckpointError.

    Args:
        where: The model's file, or its class.
        what: What it was asked.
    """
    try:
        with quiet_transformers:
            yield
    except (KeyboardInterrupt, SystemExit, WmtpError):
        raise
    except BaseException as error:  # libraries raise every kind
        raise CheckpointError(
            f"{where}: it raised {_shown(error)} on {what}",
            hint="see whether transformers' own forward pass answers token ids alone; a model that needs more,"
            " or keeps something between calls, takes a class of its own (docs/extending.md)",
        ) from error


def _is_ours(error: BaseException) -> bool:
    # The code could raise our own errors, with any text in them.
    trace = error.__traceback__
    while trace and trace.tb_next:
        trace = trace.tb_next
    return trace is not None and str(trace.tb_frame.f_globals.get("__name__")).startswith("wmtp.")


def _shown(error: BaseException) -> str:
    try:
        return f"{plain(type(error).__name__)}: {show(str(error))}{_raised_in(error)}"
    except BaseException:  # noqa: BLE001  the class is the code's own, and so is its __str__
        return "an exception that cannot be shown"


def _raised_in(error: BaseException) -> str:
    """Say which class's `__init__` was running, and the one inside it that failed, with files and lines."""
    running = [
        f"{plain(frame.f_code.co_qualname)} ({plain(_file_of(frame))}, line {line})"
        for frame, line in walk_tb(error.__traceback__)
        if frame.f_code.co_name == "__init__" and _is_of_a_model(frame)
    ]
    return f", in {' of '.join(dict.fromkeys((running[-1], running[0])))}" if running else ""


def _is_of_a_model(frame: FrameType) -> bool:
    # A model is made of torch's modules, and its configuration is wrapped: what they raise, others made them raise.
    package = str(frame.f_globals.get("__name__")).partition(".")[0]
    return package not in ("wmtp", "torch", "huggingface_hub") and not frame.f_code.co_qualname.endswith(">.__init__")


def _file_of(frame: FrameType) -> str:
    """The file as its package names it: where packages lie on this machine is nobody's business."""
    module = str(frame.f_globals.get("__name__"))
    if module.partition(".")[0] in sys.modules and not module.startswith("wmtp_checkpoint_"):
        return f"{module.replace('.', '/')}.py"
    return frame.f_code.co_filename.rpartition("/")[2]


class _QuietTransformers:
    """transformers logs what a stranger's files say, as they say it; several threads may be inside at once.

    So does bitsandbytes, of kernels for other machines, where a class of transformers imports it.
    """

    _NAMES = ("transformers", "bitsandbytes")

    def __init__(self) -> None:
        self._lock, self._num_inside, self._silence = threading.Lock(), 0, logging.NullHandler()
        self._before: list[tuple[list[logging.Handler], bool]] = []

    # Their handlers are exchanged: changing a level makes every logger of the process look its own up again.
    def __enter__(self) -> None:
        loggers = list(map(logging.getLogger, self._NAMES))
        with self._lock:
            if self._num_inside == 0:
                self._before = [(logger.handlers, logger.propagate) for logger in loggers]
                for logger in loggers:
                    logger.handlers, logger.propagate = [self._silence], False
            self._num_inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._num_inside -= 1
            if self._num_inside == 0:
                for name, before in zip(self._NAMES, self._before, strict=True):
                    logger = logging.getLogger(name)
                    logger.handlers, logger.propagate = before


quiet_transformers = _QuietTransformers()
