"""What is published: everything that the package reads of itself, and nothing of the workshop."""

from __future__ import annotations

import tarfile
from email.message import Message
from email.parser import HeaderParser
from pathlib import Path
from zipfile import ZipFile

import pytest

from wmtp import __version__

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
SOURCES = {
    path.relative_to(ROOT / "src").as_posix()
    for path in (ROOT / "src/wmtp").rglob("*")
    if path.is_file() and path.suffix != ".pyc"
}


def wheel(dist: Path) -> ZipFile:
    (path,) = dist.glob(f"wmtp-{__version__}-py3-none-any.whl")
    return ZipFile(path)


def metadata(dist: Path) -> Message:
    with wheel(dist) as archive:
        return HeaderParser().parsestr(archive.read(f"wmtp-{__version__}.dist-info/METADATA").decode())


def test_the_wheel_has_every_file_of_the_package_and_no_other(dist):
    with wheel(dist) as archive:
        found = {name for name in archive.namelist() if not name.startswith(f"wmtp-{__version__}.dist-info/")}
    assert found == SOURCES
    assert {"wmtp/py.typed", "wmtp/report/assets/d3.min.js", "wmtp/report/assets/page.js"} <= found


def test_the_source_distribution_has_the_package_and_what_builds_it_and_no_tests_and_no_models(dist):
    (path,) = dist.glob(f"wmtp-{__version__}.tar.gz")
    with tarfile.open(path) as archive:
        names = {member.name.partition("/")[2] for member in archive if member.isfile()}
    others = {name for name in names if not name.startswith(("src/wmtp/", "src/wmtp.egg-info/"))}
    assert {name.removeprefix("src/") for name in names if name.startswith("src/wmtp/")} == SOURCES
    assert others == {"LICENSE", "MANIFEST.in", "PKG-INFO", "README.md", "pyproject.toml", "setup.cfg"}


def test_what_is_installed_without_an_extra_has_no_torch_and_each_extra_is_offered(dist):
    said = metadata(dist)
    needed = said.get_all("Requires-Dist")
    base = [line for line in needed if "extra ==" not in line]
    assert base
    assert not [line for line in base if line.startswith(("torch", "transformers", "numpy", "pyarrow"))]
    assert {"torch", "train", "s3", "lora", "signing"} <= set(said.get_all("Provides-Extra"))
    assert said["License-Expression"] == "Apache-2.0"
