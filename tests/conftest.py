"""What holds for every test: no network, no recorded consent or cache of the person who runs them, one thread."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from click.testing import Result

# Before torch is imported. The models here are tiny: more threads only wait for each other.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_VERBOSITY"] = "error"

# A shell without job control starts what it puts in the background deaf to SIGINT, and so is all that this starts.
if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# A slow machine is no fault.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")

pytest_plugins = ["servers.fixtures"]


@pytest.fixture(autouse=True)
def _own_configuration(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.mktemp("config")))
    monkeypatch.setenv("WMTP_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture(autouse=True)
def _own_log() -> Iterator[None]:
    """A command that ran in this process has given its log lines a place on stderr, and leaves them there."""
    logger = logging.getLogger("wmtp")
    handlers, level = logger.handlers, logger.level
    yield
    logger.handlers = handlers
    logger.setLevel(level)


@pytest.fixture
def wmtp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Run a command line in this process; recorded consent is the test's own."""
    from typer.testing import CliRunner

    from wmtp.cli.main import app

    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home"))
    return lambda *words, **keywords: CliRunner().invoke(app, [str(word) for word in words], **keywords)
