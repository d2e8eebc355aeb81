"""The tutorials, followed in an empty directory: files written, commands run in order, and what is shown is printed."""

from pathlib import Path

import pytest

from documented_commands import follow

TUTORIALS = sorted((Path(__file__).parents[2] / "docs/tutorials").glob("*.md"))


@pytest.mark.slow
@pytest.mark.parametrize("page", TUTORIALS, ids=lambda page: page.stem)
def test_a_tutorial_does_what_it_says(page, tmp_path):
    follow(page, tmp_path)
