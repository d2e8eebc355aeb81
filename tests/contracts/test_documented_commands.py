"""Every block of commands on a page is run by a test, or says behind the page why not."""

from pathlib import Path

import pytest

from documented_commands import blocks

DOCS = Path(__file__).parents[2] / "docs"
TUTORIALS = DOCS / "tutorials"
# Korean pages have the blocks of English ones, by test_korean_pages.py.
KOREAN = DOCS / "ko"
PAGES = [page for page in sorted(DOCS.rglob("*.md")) if page.parent != TUTORIALS and KOREAN not in page.parents]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(DOCS).as_posix())
def test_commands_that_no_test_runs_say_why(page):
    silent = [block.text for block in blocks(page) if block.is_commands and not block.not_run]
    assert not silent, (
        "put <!-- not run: why --> on the line before, or run the page in tests/end_to_end/test_tutorials.py"
    )


def test_every_tutorial_runs_most_of_its_commands():
    for page in TUTORIALS.glob("*.md"):
        commands = [block for block in blocks(page) if block.is_commands]
        assert len([block for block in commands if block.not_run]) <= 1, page.name
        assert commands or page.name == "index.md"
