"""Reading training documents: text files, JSONL with a text, JSONL with prompt and completion (MBPP's form too)."""

from __future__ import annotations

import glob
import hashlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from dataclasses import field as attribute
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from wmtp.data.columns import read_number, refuse_columns
from wmtp.errors import DataError
from wmtp.untrusted import MAX_INDEX_BYTES, JSONFault, did_you_mean, parse_json, show, show_all

if TYPE_CHECKING:
    from wmtp.settings.data import DataSource

logger = logging.getLogger("wmtp")

# What is read from a directory; a file that is named or matched by a pattern may have any name.
TEXT_SUFFIXES = frozenset({
    ".c", ".cfg", ".cpp", ".css", ".go", ".h", ".html", ".ini", ".java", ".js", ".json", ".jsonl", ".md", ".py", ".pyi",
    ".rs", ".rst", ".sh", ".sql", ".toml", ".ts", ".txt", ".yaml", ".yml",
})  # fmt: skip


@dataclass(frozen=True)
class Document:
    """One piece of text that stands by itself: attention and prediction never cross its ends.

    Attributes:
        text: What is learned.
        prompt: What comes before it and is only read; empty for plain text.
        where: File, and line for JSONL, for messages.
        scores: Numbers that the data has of it, by the name of the score.
    """

    text: str
    prompt: str = ""
    where: str = ""
    scores: Mapping[str, float] = attribute(default_factory=dict, hash=False)

    @property
    def prompt_text(self) -> str:
        """The prompt as the model sees it: the text begins on the line after it, whatever newlines the data had."""
        return self.prompt.rstrip("\n") + "\n" if self.prompt else ""

    @property
    def whole_text(self) -> str:
        """The document as the model sees it, without its end-of-sequence token."""
        return self.prompt_text + self.text.lstrip("\n") if self.prompt else self.text


def read_documents(
    source: DataSource, *, field: str, columns: Mapping[str, str] = MappingProxyType({})
) -> list[Document]:
    """Return every document of a data source, in the order of its files.

    A directory is read recursively: every file whose suffix is one of `TEXT_SUFFIXES`, or `*.jsonl` for prompts and
    completions; hidden ones are left out. What is found there and is not UTF-8 text is skipped, and the log says how
    many files that were; a file that is named, or matched by a pattern, must be readable.

    Args:
        source: Which files, and how they are read.
        field: The recipe's section that `source` comes from, for messages: `data.train`.
        columns: Numbers that every document must have: the name of the score, and the key of JSONL that holds it.

    Raises:
        DataError: If a pattern matches no file, a file or line cannot be used, or there is no document at all.
    """
    documents: list[Document] = []
    num_skipped = 0
    for path, is_found in find_files(source, field):
        text = _read_text(path, may_skip=is_found)
        if text is None:
            num_skipped += 1
        elif source.format == "text" and path.suffix != ".jsonl":
            refuse_columns(path, columns)
            documents += [Document(text, where=str(path))] if text.strip() else []
        else:
            documents += [_document(entry, source, field, where, columns) for entry, where in _json_lines(text, path)]
    if num_skipped:
        logger.warning("%s: skipped %d files that are not UTF-8 text", field, num_skipped)
    if not documents:
        raise DataError(
            f"{field}.files: there is no document in {', '.join(show_all(source.files))}",
            hint="name files with text in them; a directory is searched for files such as *.py, *.txt and *.jsonl",
        )
    return documents


def hold_out(documents: Sequence[Document], fraction: float) -> tuple[list[Document], list[Document]]:
    """Split documents into those to train on and those to validate on.

    The choice depends on the documents alone, by the SHA-256 of each: every seed gets the same validation set, and
    documents with equal text are never on both sides.

    Args:
        documents: All of them.
        fraction: The share to hold out, between 0 and 1.

    Raises:
        DataError: If there are not two different documents to split.
    """
    digests = [hashlib.sha256(document.whole_text.encode()).hexdigest() for document in documents]
    different = sorted(set(digests))
    if len(different) < 2:
        raise DataError(
            "data.validation.fraction: the training data is a single document, which cannot be split",
            hint="name validation files of their own, or give the training data as several files",
        )
    held = set(different[: min(max(1, round(fraction * len(different))), len(different) - 1)])
    pairs = list(zip(documents, digests, strict=True))
    return [d for d, digest in pairs if digest not in held], [d for d, digest in pairs if digest in held]


def find_files(source: DataSource, field: str) -> Iterator[tuple[Path, bool]]:
    """Yield each file of a data source once, and whether it was found in a directory rather than asked for.

    Raises:
        DataError: If a pattern matches no file.
    """
    suffixes = TEXT_SUFFIXES if source.format == "text" else frozenset({".jsonl"})
    seen: set[Path] = set()
    for pattern in source.files:
        matches = [Path(match) for match in sorted(glob.glob(pattern, recursive=True))]  # noqa: PTH207  Path.glob takes no absolute one
        if not matches:
            raise DataError(f"{field}.files: {show(pattern)} matches no file", hint=_nearest(pattern))
        for match in matches:
            for path in _files_below(match, suffixes) if match.is_dir() else [match]:
                if path not in seen:
                    seen.add(path)
                    yield path, match.is_dir()


def _files_below(directory: Path, suffixes: frozenset[str]) -> Iterator[Path]:
    for path in sorted(directory.rglob("*")):
        is_hidden = any(part.startswith(".") for part in path.relative_to(directory).parts)
        if path.suffix in suffixes and path.is_file() and not is_hidden:
            yield path


def _nearest(pattern: str) -> str:
    # The deepest directory of the pattern that exists is where the mistake begins.
    directory = Path(pattern)
    while not directory.is_dir():
        directory = directory.parent
    inside = sorted(path.name for path in directory.iterdir() if not path.name.startswith("."))
    listed = ", ".join(show_all(inside[:8])) or "nothing"
    return f"{directory} holds: {listed}{did_you_mean(Path(pattern).name, inside)}"


def _read_text(path: Path, *, may_skip: bool) -> str | None:
    try:
        text = path.read_bytes().decode("utf-8-sig")
        fault = "it has NUL characters" if "\0" in text else ""
    except (OSError, UnicodeDecodeError) as error:
        text, fault = "", str(error)
    if fault and not may_skip:
        raise DataError(f"{path}: not readable as UTF-8 text: {fault}", hint="convert the file, or leave it out")
    return None if fault else text.replace("\r\n", "\n")


def _json_lines(text: str, path: Path) -> Iterator[tuple[dict[str, Any], str]]:
    # Not splitlines(): it also splits at U+2028, which may stand unescaped inside a JSON string.
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        where = f"{path}:{number}"
        try:
            entry = parse_json(line.encode(), max_bytes=MAX_INDEX_BYTES)
        except JSONFault as fault:
            raise DataError(f"{where}: {fault}", hint="mend the line, or remove it") from fault
        if not isinstance(entry, dict):
            raise DataError(f"{where}: expected a JSON object, found {show(entry)}", hint="write one object a line")
        yield entry, where


def _document(
    entry: dict[str, Any], source: DataSource, field: str, where: str, columns: Mapping[str, str]
) -> Document:
    def value(name: str) -> str:
        return _value(entry, getattr(source, name), f"{field}.{name}", where)

    scores = {score: read_number(entry, key, where) for score, key in columns.items()}
    if source.format == "text":
        return Document(value("text"), where=where, scores=scores)
    return Document(value("completion"), prompt=value("prompt"), where=where, scores=scores)


def _value(entry: dict[str, Any], key: str, field: str, where: str) -> str:
    if key not in entry:
        found = ", ".join(show_all(entry)) or "none"
        raise DataError(
            f"{where}: the key {show(key)} is missing; keys found: {found}",
            hint=f"set {field} in the recipe to the key that holds it{did_you_mean(key, entry)}",
        )
    value = entry[key]
    if not isinstance(value, str) or not value.strip():
        raise DataError(f"{where}: {show(key)} is {show(value)}, expected text", hint="mend the line, or remove it")
    return value
