"""Functions of the standard library with a mark that value heads can learn, for the demo of critic-wmtp."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from textwrap import dedent

REWARD_COLUMN = "has_docstring"
# In characters: long enough to have something in them, short enough for a row of the demo.
_SIZES = range(120, 340)


def write_functions(path: Path, sources: Sequence[Path], *, at_most: int) -> int:
    """Write functions as JSONL, one a line under `text`, and whether each has a docstring; returns how many.

    As many with as without one, in the order of the sources.

    Args:
        path: The file to write.
        sources: Python files.
        at_most: How many functions to write.
    """
    found = [function for source in sources for function in _functions(source)]
    marked = [text for text, has_docstring in found if has_docstring]
    plain = [text for text, has_docstring in found if not has_docstring]
    # As many of each kind: what one kind has more than the other is left out.
    pairs = list(zip(marked, plain, strict=False))[: at_most // 2]
    lines = [{"text": text, REWARD_COLUMN: mark} for pair in pairs for text, mark in zip(pair, (1, 0), strict=True)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return len(lines)


def _functions(source: Path) -> Iterator[tuple[str, bool]]:
    text = source.read_text(encoding="utf-8", errors="replace")
    try:
        tree = ast.parse(text)
    except SyntaxError:  # a file of another Python, or one made to be wrong
        return
    lines = text.split("\n")
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            # Not ast.get_source_segment: it splits the whole file again for each function.
            code = dedent("\n".join(lines[node.lineno - 1 : node.end_lineno])) + "\n"
            if len(code) in _SIZES:
                yield code, ast.get_docstring(node, clean=False) is not None
