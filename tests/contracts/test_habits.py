"""What stands around the code: who is cited, what a report is asked for, which decisions there are."""

import re
import tomllib
from pathlib import Path

import pytest
from ruamel.yaml import YAML

import wmtp

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
DECISIONS = ROOT / "docs/decisions"


def parsed(path):
    return YAML(typ="safe").load((ROOT / path).read_text())


def test_the_citation_is_of_this_version_and_this_project():
    citation = parsed("CITATION.cff")
    assert (citation["cff-version"], citation["type"]) == ("1.2.0", "software")
    assert citation["version"] == PROJECT["version"] == wmtp.__version__
    assert citation["license"] == PROJECT["license"]
    assert citation["authors"] == PROJECT["authors"]
    assert set(citation["keywords"]) <= set(PROJECT["keywords"])
    assert {"message", "title"} <= set(citation)


def test_every_decision_is_in_the_index_with_its_title_and_its_status():
    lines = re.findall(r"^\| \[(\d{4})\]\(([^)]+)\) \| (.+?) \| (.+?) \|$", (DECISIONS / "README.md").read_text(), re.M)
    files = sorted(path.name for path in DECISIONS.glob("[0-9]*.md"))
    assert [file for _, file, _, _ in lines] == files
    for number, file, title, status in lines:
        text = (DECISIONS / file).read_text()
        assert file.startswith(number)
        assert text.splitlines()[0] == f"# {number}: {title}"
        assert re.search(status, text, re.IGNORECASE), file


@pytest.mark.parametrize("name", ["bug", "idea"])
def test_a_template_asks_for_the_environment_and_has_the_form_that_is_shown_as_a_form(name):
    form = parsed(f".github/ISSUE_TEMPLATE/{name}.yml")
    assert {"name", "description", "body"} <= set(form)
    fields = [item for item in form["body"] if item["type"] != "markdown"]
    assert len({item["id"] for item in fields}) == len(fields)
    asked = next(item for item in fields if item["id"] == "env")
    assert "`wmtp env --json`" in asked["attributes"]["label"]
    assert asked["attributes"]["render"] == "json"


def test_pull_requests_are_asked_for_the_changelog_and_the_environment():
    text = (ROOT / ".github/PULL_REQUEST_TEMPLATE.md").read_text()
    assert all(said in text for said in ("CHANGELOG.md", "wmtp env --json", "make check", "docs/releasing.md"))


def test_conduct_is_reported_where_holes_are():
    assert "(SECURITY.md#reporting)" in (ROOT / "CODE_OF_CONDUCT.md").read_text()
    assert "private reporting channel of the place that hosts this repository" in (ROOT / "SECURITY.md").read_text()
