"""What the built site must keep to: each link and anchor leads somewhere, and nothing is fetched from another place."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

# Attributes by which a page fetches something by itself, without a click.
_FETCHED = {("script", "src"), ("img", "src"), ("link", "href"), ("iframe", "src"), ("source", "srcset")}
# Links of the kinds that fetch nothing.
_NOT_FETCHED = {"canonical", "prev", "next", "alternate"}


class _Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.links: list[str] = []
        self.fetched: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.anchors |= {values[name] for name in ("id", "name") if name in values}
        for name, value in values.items():
            if (tag, name) in _FETCHED and values.get("rel") not in _NOT_FETCHED:
                self.fetched.append(value)
            elif (tag, name) == ("a", "href"):
                self.links.append(value)


@cache
def _page(path: Path) -> _Page:
    return _Page(path.read_text(encoding="utf-8"))


def faults_of_site(site: Path) -> list[str]:
    """Return what is wrong with a built site, one line a fault.

    Args:
        site: The directory with its index.html.
    """
    pages = sorted(path for path in site.rglob("*.html") if path.name != "404.html")
    return [f"{path.relative_to(site)}: {fault}" for path in pages for fault in _faults_of_page(path, site)]


def _faults_of_page(path: Path, site: Path) -> Iterator[str]:
    page = _page(path)
    for address in page.fetched:
        if urlsplit(address).netloc:
            yield f"fetches {address} from another place"
    for link in [*page.links, *page.fetched]:
        parts = urlsplit(link)
        if parts.scheme or parts.netloc:
            continue
        target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
        target = target / "index.html" if target.is_dir() else target
        if not target.is_file() or not target.is_relative_to(site.resolve()):
            yield f"link to {link}, and there is no such page"
        elif parts.fragment and target.suffix == ".html" and not _has_anchor(target, unquote(parts.fragment)):
            yield f"link to {link}, and that page has no such place"


def _has_anchor(path: Path, name: str) -> bool:
    # `__` begins what the theme's scripts make when a page is shown.
    return name.startswith("__") or name in _page(path).anchors
