"""A page that is in no menu of the site is found by nobody."""

import tomllib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"


def pages(entry) -> Iterator[str]:
    if isinstance(entry, str):
        yield entry
    for child in entry if isinstance(entry, list) else entry.values() if isinstance(entry, dict) else ():
        yield from pages(child)


def test_every_page_is_in_the_navigation_once():
    listed = sorted(pages(tomllib.loads((DOCS / "site/zensical.toml").read_text())["project"]["nav"]))
    written = {page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md")}
    # errors.md is what `wmtp explain` prints, put there by build.py.
    elsewhere = [page for page in listed if page.startswith("reference/") or (ROOT / page).exists()]
    ours = [page for page in listed if page not in [*elsewhere, "errors.md"]]
    assert ours == sorted(page for page in written if not page.startswith("decisions/"))
