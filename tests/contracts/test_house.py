"""The map in CONTRIBUTING.md is the house: every room is in it, on the floor that import-linter holds it to."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
MAP = (ROOT / "CONTRIBUTING.md").read_text()


def rooms() -> set[str]:
    """Directories and files directly under the package, as the map names them."""
    found = [path for path in (ROOT / "src/wmtp").iterdir() if not path.name.startswith("_")]
    return {path.name for path in found if path.suffix == ".py" or (path / "__init__.py").is_file()}


def floors() -> list[str]:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    return next(contract["layers"] for contract in contracts if contract["type"] == "layers")


def test_every_room_is_in_the_map_and_only_rooms_are():
    assert sorted(re.findall(r"^\| `([\w.]+)` \|", MAP, re.MULTILINE)) == sorted(rooms())


def test_the_floors_that_are_drawn_are_those_that_are_checked():
    drawn = re.search(r"```text\n(cli\n.*?)```", MAP, re.DOTALL)
    assert drawn is not None
    assert drawn[1].splitlines() == floors()


def test_every_room_stands_on_a_floor():
    assert {name for floor in floors() for name in floor.split(" | ")} == {room.removesuffix(".py") for room in rooms()}


def test_tests_mirror_the_rooms():
    others = {"contracts", "end_to_end", "faults", "fuzz", "hostile", "package", "servers", "sweep"}
    directories = {path.name for path in (ROOT / "tests").iterdir() if path.is_dir() and any(path.glob("*.py"))}
    assert directories - others <= {room.removesuffix(".py") for room in rooms()}
    assert {room for room in rooms() if not room.endswith(".py")} <= directories
