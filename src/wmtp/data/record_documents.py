"""From the objects of JSON files and the rows of tables to documents, by the keys that a recipe names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from wmtp.data.columns import read_messages, read_number, read_text
from wmtp.data.document import Document

if TYPE_CHECKING:
    from wmtp.settings.data import Reading


@dataclass(frozen=True)
class RecordReader:
    """Makes a document of a record.

    Attributes:
        source: Which keys hold what.
        field: The recipe's section that `source` comes from, for messages: `data.train`.
        columns: Numbers that every document must have: the name of the score, and the key that holds it.
    """

    source: Reading
    field: str
    columns: Mapping[str, str]

    @property
    def keys(self) -> list[str]:
        """The keys that are read."""
        source = self.source
        own = {"text": [source.text], "chat": [source.messages]}.get(source.format, [source.prompt, source.completion])
        return list(dict.fromkeys([*own, *self.columns.values()]))

    def hint(self, key: str, *, is_column: bool = False) -> str:
        """Return what to do where a key of JSON, or a column of a table, is missing."""
        source = self.source
        own = {"text": {source.text: "text"}, "chat": {source.messages: "messages"}}
        names = own.get(source.format, {source.completion: "completion", source.prompt: "prompt"})
        if key not in names:
            return "write it for every document, or name the key that holds it in the recipe"
        if source.format == "text" and not is_column:
            return f"set format: raw_text to learn JSON as it stands, or {self.field}.text to the key that holds it"
        return f"set {self.field}.{names[key]} in the recipe to the {'column' if is_column else 'key'} that holds it"

    def document(self, entry: Mapping[str, Any], where: str) -> Document:
        """Return the document that a record holds.

        Args:
            entry: The record.
            where: File, and line or row, for messages.

        Raises:
            DataError: If a key is missing, or its value cannot be used.
        """
        source = self.source
        scores = {score: read_number(entry, key, where) for score, key in self.columns.items()}
        if source.format == "chat":
            turns = read_messages(entry, source.messages, where, self.hint(source.messages))
            return Document("", where=where, scores=scores, messages=turns)
        if source.format == "text":
            return Document(read_text(entry, source.text, where, self.hint(source.text)), where=where, scores=scores)
        prompt = read_text(entry, source.prompt, where, self.hint(source.prompt), may_be_empty=True)
        completion = read_text(entry, source.completion, where, self.hint(source.completion))
        before, after = source.template.split("{completion}")
        return Document(completion + after, before.replace("{prompt}", prompt), where, scores)
