"""The page of errors: every class has its entry, in the form in which the command line prints an error."""

import inspect
import re
from pathlib import Path

import pytest

from wmtp import errors

PAGE = (Path(__file__).parents[2] / "docs/errors.md").read_text()
CLASSES = [name for name, cls in inspect.getmembers(errors, inspect.isclass) if issubclass(cls, errors.WmtpError)]
ENTRIES = dict(re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", PAGE, re.DOTALL | re.MULTILINE))


def test_every_class_has_an_entry_and_no_entry_is_of_another():
    assert sorted(ENTRIES) == sorted(CLASSES)


@pytest.mark.parametrize("name", CLASSES)
def test_an_entry_says_what_it_means_shows_an_error_and_says_what_to_do(name):
    meaning, example, advice = re.fullmatch(r"(.+?)```text\n(.+?)```\n(.+)", ENTRIES[name].strip(), re.DOTALL).groups()
    problem, *faults, hint = example.strip().splitlines()
    assert meaning.strip().endswith(".")
    assert problem.startswith("error: ")
    assert all(fault.startswith("  ") for fault in faults)
    assert hint.startswith("hint: ")
    assert advice.strip().startswith("**What to do.** ")


def test_the_tree_of_the_page_is_that_of_the_module():
    drawn = [line.split()[-1] for line in PAGE.splitlines() if re.match(r"[│ ]*[├└]── ", line)]
    module = [re.match(r"\W*(\w+(\(\w+\))?)", line)[1] for line in errors.__doc__.splitlines() if "── " in line]
    assert [re.sub(r"^\W+", "", name) for name in drawn] == module
