"""The site that `make docs` builds, in a real browser: every page at three widths, without a network."""

import functools
import http.server
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from browser import launched_browser

pytestmark = pytest.mark.slow
pytest.importorskip("zensical", reason="the site's builder is not installed: make docs installs it")

ROOT = Path(__file__).parents[2]
SITE = ROOT / "build/site/html"
WIDTHS = (390, 820, 1440)  # of a phone, a tablet, a desk
PAGES = ("/", "/tutorials/first-run/", "/recipe_format/", "/errors/", "/reference/cli/", "/reference/python/")


class Handler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        """Say nothing."""


@pytest.fixture(scope="module")
def address():
    done = subprocess.run(
        [sys.executable, str(ROOT / "docs/site/build.py")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(SITE)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def browser():
    with launched_browser() as browser:
        yield browser


@pytest.fixture
def opened(browser, address, request):
    """A page of the wanted width, and what went wrong in it: told, asked for elsewhere, or not found."""
    page = browser.new_page(viewport={"width": getattr(request, "param", 1440), "height": 900})
    wrong = []
    page.on("console", lambda said: wrong.append(said.text) if said.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("request", lambda asked: wrong.append(asked.url) if not _own(asked.url, address) else None)
    page.on("response", lambda got: wrong.append(f"{got.status} {got.url}") if got.status >= 400 else None)
    yield page, wrong
    page.close()


def _own(url: str, address: str) -> bool:
    return url.startswith((address, "data:", "blob:"))


@pytest.mark.parametrize("opened", WIDTHS, indirect=True)
@pytest.mark.parametrize("path", PAGES)
def test_a_page_shows_by_itself_and_fits(opened, address, path):
    page, wrong = opened
    page.goto(address + path, wait_until="networkidle")
    assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    assert page.locator("h1").first.is_visible()
    assert not wrong


def test_searching_finds_a_page_without_a_network(opened, address):
    page, wrong = opened
    page.goto(address, wait_until="networkidle")
    page.keyboard.press("Control+k")
    page.keyboard.type("arrivalerror")
    page.get_by_text("Errors").last.wait_for()
    page.locator("a[href*='errors']").last.wait_for()
    assert not wrong


def test_dark_mode_can_be_chosen(opened, address):
    page, wrong = opened
    page.goto(address, wait_until="networkidle")
    light = page.evaluate("getComputedStyle(document.body).backgroundColor")
    for _ in range(2):
        page.locator("label[for^='__palette']:visible").click()
    assert page.evaluate("document.body.dataset.mdColorScheme") == "slate"
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != light
    assert not wrong


def test_commands_have_a_button_that_copies_them(opened, address):
    page, wrong = opened
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.goto(address + "/tutorials/first-run/", wait_until="networkidle")
    page.locator(".highlight").nth(1).hover()
    page.locator(".highlight").nth(1).locator("button").first.click()
    assert page.evaluate("navigator.clipboard.readText()").startswith("python prepare.py\nwmtp ls zoo")
    assert not wrong
