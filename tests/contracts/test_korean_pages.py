"""A page in docs/ko says what its English twin says: the same headings, blocks, tables, words of code and links."""

import dataclasses
import re
from pathlib import Path

import pytest

from documented_commands import Block, blocks

DOCS = Path(__file__).parents[2] / "docs"
KOREAN = DOCS / "ko"
PAGES = sorted(KOREAN.rglob("*.md"))
_FENCE = re.compile(r"^```.*?^```$", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_COMMENT = re.compile(r"(?<=\S)\s+# .*")


def english(page: Path) -> Path:
    return DOCS / page.relative_to(KOREAN)


def korean(page: Path) -> Path | None:
    return KOREAN / page.relative_to(DOCS) if page.is_relative_to(DOCS) else None


def prose(page: Path) -> str:
    return _FENCE.sub("", page.read_text())


def headings(page: Path) -> list[str]:
    return re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)


def levels(page: Path) -> list[str]:
    return re.findall(r"^(#+) ", prose(page), re.MULTILINE)


def code(page: Path) -> list[Block]:
    """The blocks and their marks, without comments behind code, which are in the language of the reader."""
    return [dataclasses.replace(block, text=_COMMENT.sub("", block.text)) for block in blocks(page)]


def tables(page: Path) -> list[int]:
    return [line.count("|") for line in prose(page).splitlines() if line.startswith("|")]


def words_of_code(page: Path) -> list[str]:
    return sorted(re.findall(r"`([^`\n]+)`", prose(page)))


def links(page: Path) -> list[tuple[str, str]]:
    """Where links lead: an English page stands for its Korean one, and a heading of these for its number."""
    return sorted(_place(target, anchor) for target, anchor in targets(page))


def targets(page: Path) -> list[tuple[Path, str]]:
    parts = [link.partition("#") for link in _LINK.findall(prose(page))]
    return [((page.parent / name).resolve() if name else page, anchor) for name, _, anchor in parts]


def _place(target: Path, anchor: str) -> tuple[str, str]:
    if target in PAGES or korean(target) in PAGES:
        names = [re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-") for text in headings(target)]
        number = str(names.index(anchor)) if anchor else ""
        return str(english(target) if target in PAGES else target), number
    return str(target), anchor


@pytest.mark.parametrize("part", [levels, code, tables, words_of_code, links], ids=lambda part: part.__name__)
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(KOREAN).as_posix())
def test_a_korean_page_has_what_its_twin_has(page, part):
    assert part(page) == part(english(page))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(KOREAN).as_posix())
def test_a_korean_page_leads_to_korean_pages_where_there_are(page):
    away = [target for target, _ in targets(page) if korean(target) in PAGES and target != english(page)]
    assert not away
