"""`make docs`: gathers pages, has the reference written by the program itself, builds the site, checks what came out.

Committed pages link to each other as files do on a forge; what is gathered from above `docs/` gets its links rewritten.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from check import faults_of_site
from reference import write_reference

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
BUILD = ROOT / "build/site"
PAGES = BUILD / "pages"
# Pages that lie beside docs/ in the repository, and beside its pages in the site.
FROM_ROOT = ("CHANGELOG.md", "CODE_OF_CONDUCT.md", "CONTRIBUTING.md", "SECURITY.md")
# What `wmtp explain` prints is a page as well.
_ERRORS = "src/wmtp/explanations/errors.md"
_LINK = re.compile(r"(\]\()([^)\s]+)(\))")
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_FENCE = re.compile(r"^```.*?^```$", re.DOTALL | re.MULTILINE)
_DECISIONS_MARK = "    # decisions: put here by build.py\n"


def gather() -> None:
    """Copy every page to where the site is built, with links that hold there."""
    shutil.rmtree(BUILD, ignore_errors=True)
    shutil.copytree(ROOT / "docs", PAGES, ignore=shutil.ignore_patterns("site", "__pycache__"))
    shutil.copytree(HERE / "assets", PAGES / "assets")
    for name in FROM_ROOT:
        shutil.copy(ROOT / name, PAGES / name)
    shutil.copy(ROOT / _ERRORS, PAGES / "errors.md")
    for page in PAGES.rglob("*.md"):
        page.write_text(outside_code(page.read_text(), lambda text, page=page: _relinked(text, page)))
    (BUILD / "zensical.toml").write_text(_configuration())


def outside_code(text: str, change: Callable[[str], str]) -> str:
    """Apply a change to everything in a page but its blocks of code."""
    kept = _FENCE.findall(text)
    changed = [change(part) for part in _FENCE.split(text)]
    return "".join(part + fence for part, fence in zip(changed, [*kept, ""], strict=True))


def _relinked(text: str, page: Path) -> str:
    return _LINK.sub(lambda found: found[1] + _target(found[2], page) + found[3], text)


def _target(link: str, page: Path) -> str:
    """Return a link as it has to be in the site; what the site does not have stays, and then fails the build."""
    if page.name in FROM_ROOT and page.parent == PAGES:
        link = "index.md" if link == "docs/" else link.removeprefix("docs/")
    link = link.replace(f"../{_ERRORS}", "errors.md")
    while link.startswith("../") and not (page.parent / link.partition("#")[0]).resolve().is_relative_to(PAGES):
        link = link.removeprefix("../")
    if link.startswith("README.md"):  # the landing page stands for it, with headings of its own
        return "index.md"
    return link + "README.md" if link.endswith("/") and ":" not in link else link


def _configuration() -> str:
    text = (HERE / "zensical.toml").read_text()
    assert _DECISIONS_MARK in text
    decisions = sorted((PAGES / "decisions").glob("0*.md"))
    lines = [
        '      "decisions/README.md",\n',
        *(f'      {{ {_title(page)} = "decisions/{page.name}" }},\n' for page in decisions),
    ]
    return text.replace(_DECISIONS_MARK, '    { "Decisions" = [\n' + "".join(lines) + "    ] },\n")


def _title(page: Path) -> str:
    """Return the first heading of a page, as a key of TOML."""
    heading = page.read_text().partition("\n")[0].removeprefix("# ").replace("\\", "").replace('"', "'")
    return f'"{heading}"'


def build() -> None:
    """Run the generator, and stop with what it said if there is anything that it warns of."""
    command = [sys.executable, "-m", "zensical", "build", "--clean", "--strict"]
    result = subprocess.run(command, cwd=BUILD, capture_output=True, text=True, check=False)
    printed = result.stdout + result.stderr
    if result.returncode or "WARNING" in printed or "ERROR" in printed:
        told = _COLOUR.sub("", printed).partition("Traceback")[0]
        sys.exit(told + "the site was not built: mend what is named above")


def main() -> None:
    """Build the site into build/site/html."""
    gather()
    write_reference(PAGES / "reference")
    build()
    faults = faults_of_site(BUILD / "html")
    if faults:
        sys.exit("\n".join(faults) + f"\n{len(faults)} faults of the built site: mend the pages")
    num_pages = len(list((BUILD / "html").rglob("*.html")))
    print(f"{BUILD / 'html' / 'index.html'}: {num_pages} pages; see them with make docs-serve")


if __name__ == "__main__":
    main()
