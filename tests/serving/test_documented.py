"""The page that people read says of every family and program what the table says."""

from pathlib import Path

from wmtp.checkpoint.families import FAMILIES
from wmtp.serving.table import PROGRAMS

PAGE = (Path(__file__).parents[2] / "docs/serving.md").read_text()


def row(family):
    count = f"`{family.counts[0]}`" if family.counts else f"none: {family.fixed_count}"
    supports = [program.drafts.get(family.name) for program in PROGRAMS.values()]
    cells = ["—" if support is None else support.evidence.value.split()[0] for support in supports]
    return f"| `{family.name}` | {count} | `{family.layout.block}` | {' | '.join(cells)} |"


def test_the_page_has_every_family_and_no_other():
    shown = [line for line in PAGE.splitlines() if line.startswith("| `") and "{" in line]
    assert shown == [row(family) for family in FAMILIES]


def test_the_page_has_every_program_in_its_version():
    shown = [line.split(" | ")[:2] for line in PAGE.splitlines() if line.startswith("| `") and "{" not in line]
    assert shown == [[f"| `{program.name}`", program.label] for program in PROGRAMS.values()]
