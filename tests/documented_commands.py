"""Blocks of the documents' pages: which are commands, which are files, and what is printed below commands."""

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

_BLOCK = re.compile(
    r"(?:^<!-- (?P<mark>.+?) -->\n)?^```(?P<language>\w+)\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE
)
_NAMED = re.compile(r"# (\S+\.\w+)\n")
_CHANGING = re.compile(r"sha256:[0-9a-f]+|[0-9][0-9.,:]*")


@dataclass(frozen=True)
class Block:
    """A block of code on a page.

    Attributes:
        mark: The comment on the line before it, which readers do not see: `not run: why`, `fails`, or nothing.
    """

    mark: str
    language: str
    text: str

    @property
    def is_commands(self) -> bool:
        return self.language in ("sh", "bash")

    @property
    def not_run(self) -> str:
        """Why it is not run, or nothing."""
        return self.mark.removeprefix("not run: ") if self.mark.startswith("not run: ") else ""

    @property
    def file(self) -> str | None:
        """The file that it shows whole, named by a comment on its first line."""
        found = None if self.is_commands else _NAMED.match(self.text)
        return found[1] if found else None


def blocks(page: Path) -> list[Block]:
    return [Block(found["mark"] or "", found["language"], found["text"]) for found in _BLOCK.finditer(page.read_text())]


def follow(page: Path, directory: Path) -> None:
    """Do what a page says, in a directory: write its files, run its commands, find below them what is shown.

    A block marked `fails` has to; what is shown may leave out lines, `…` stands for anything, and numbers differ.
    """
    printed = ""
    for block in blocks(page):
        if block.file:
            (directory / block.file).write_text(block.text)
        elif block.is_commands and not block.not_run:
            printed = run(block, directory)
        elif block.language == "text" and not block.not_run:
            for line in filter(None, block.text.splitlines()):
                assert re.search(_pattern(line), _masked(printed)), f"{page.name}: not printed: {line}\n{printed}"


def run(block: Block, directory: Path) -> str:
    own = {"HOME": str(directory / "home"), "XDG_CONFIG_HOME": str(directory / "home/config")}
    paths = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        ["bash", "-e", "-o", "pipefail", "-c", block.text],
        cwd=directory,
        env=os.environ | own | {"PATH": paths, "COLUMNS": "200", "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=1800,
        check=False,
    )
    assert (done.returncode != 0) == (block.mark == "fails"), f"{block.text}\n{done.stdout}"
    return done.stdout


def _masked(text: str) -> str:
    return _CHANGING.sub("0", text)


def _pattern(line: str) -> str:
    return ".*".join(re.escape(part.rstrip()) for part in _masked(line).split("…"))
