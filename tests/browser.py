"""A real browser without a window, for what people look at."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@contextmanager
def launched_browser() -> Iterator[Any]:
    """Yield a browser that playwright drives; skip the tests that ask for one where there is none."""
    playwright = pytest.importorskip("playwright.sync_api", reason="no playwright to drive a browser with")
    path = os.environ.get("WMTP_TEST_BROWSER") or next(filter(None, map(shutil.which, _NAMES)), None)
    if path is None:
        pytest.skip("no browser: install chromium, or name one in WMTP_TEST_BROWSER")
    with playwright.sync_playwright() as driver:
        # Chromium's own sandbox needs rights that a container's root has not; the pages are our own.
        launched = driver.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield launched
        launched.close()
