"""README.ko.md says what README.md says: the same sections, commands, links and figures."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ENGLISH, KOREAN = ((ROOT / name).read_text() for name in ("README.md", "README.ko.md"))
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def levels(text: str) -> list[str]:
    return re.findall(r"^(#+) ", _BLOCK.sub("", text), re.MULTILINE)


def code(text: str) -> list[tuple[str, list[str]]]:
    """The blocks, without comments, which are in the language of the reader."""
    return [(kind, [re.sub(r"\s+# .*", "", line) for line in body.splitlines()]) for kind, body in _BLOCK.findall(text)]


def tables(text: str) -> list[int]:
    return [line.count("|") for line in _BLOCK.sub("", text).splitlines() if line.startswith("|")]


def words_of_code(text: str) -> list[str]:
    return sorted(re.findall(r"`([^`\n]+)`", _BLOCK.sub("", text)))


def links(text: str) -> list[str]:
    others = ("README.md", "README.ko.md", "docs/ko/index.md")
    found = [link for link in re.findall(r"\]\(([^)\s]+)\)", text) if link not in others]
    return sorted(link.replace("docs/ko/", "docs/") for link in found)


@pytest.mark.parametrize("part", [levels, code, tables, words_of_code, links])
def test_both_readmes_have_the_same(part):
    assert part(KOREAN) == part(ENGLISH)


def test_figures_are_the_same():
    section = [
        text.partition(heading)[2].partition("\n## ")[0]
        for text, heading in ((ENGLISH, "## Figures"), (KOREAN, "## 수치"))
    ]
    figures = [sorted(re.findall(r"\d+(?:\.\d+)?", re.sub(r"\(.*?\)|`.*?`", "", text))) for text in section]
    assert figures[0] == figures[1]
    assert len(figures[0]) > 8
