"""A text too long to be tokenized at once, in pieces whose tokens together are those of the whole."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from wmtp.data.document import Document
from wmtp.data.parts import text_parts
from wmtp.untrusted import plain

logger = logging.getLogger("wmtp")

_PIECE_CHARACTERS = 1 << 18
# On either side of a cut. What tokenizers look at beyond a word is a few characters.
_SEAM_CHARACTERS = 1024
_MOST_TRIES = 16
# Where a line begins with something to read, and, where there is none, a word: few tokenizers make tokens across these.
_CUTS = (re.compile(r"(?<=\n)(?=\S)"), re.compile(r"(?<=\S)(?= \S)"))

Tokens = Callable[[Sequence[str]], list[list[int]]]


@dataclass(frozen=True)
class LongDocument:
    """A text file that is one document.

    Attributes:
        path: The file.
        where: Its name, for messages.
    """

    path: Path
    where: str

    def read(self) -> Document:
        """Return it as a document whose text is in memory."""
        return Document("".join(text_parts(self.path, self.where)), where=self.where)

    def pieces(self, tokens: Tokens) -> Iterator[str]:
        """Yield the text in pieces, cut only where the tokens of both sides are shown to be those of the whole.

        Args:
            tokens: Makes tokens of texts.
        """
        text, told = "", False
        for part in text_parts(self.path, self.where):
            text += part
            while len(text) >= 2 * _PIECE_CHARACTERS:
                cut = _cut(text, tokens)
                if cut is None:
                    break
                yield text[:cut]
                text = text[cut:]
            if len(text) > 64 * _PIECE_CHARACTERS and not told:
                told = True
                logger.warning(
                    "%s: tokenized as a whole, which takes memory: its tokens run across all cuts tried",
                    plain(self.where),
                )
        yield text


def _cut(text: str, tokens: Tokens) -> int | None:
    """Return a place near the end of the first piece where a cut changes no token; None where none was found."""
    begin = _PIECE_CHARACTERS
    for pattern in _CUTS:
        for count, found in enumerate(pattern.finditer(text, begin, len(text) - _SEAM_CHARACTERS)):
            if count >= _MOST_TRIES:
                break
            place = found.start()
            left, right = text[place - _SEAM_CHARACTERS : place], text[place : place + _SEAM_CHARACTERS]
            whole, before, after = tokens([left + right, left, right])
            if before + after == whole:
                return place
    return None
