"""The text of each token of a document, as a person may read it."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import Any

_BROKEN = "\ufffd"
_PART = "\u25aa"
_KEPT = "\n\t"
# Control characters, invisible ones, those that turn the direction of a line, and halves of characters.
_UNSEEN = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")


def token_texts(tokenizer: Any, ids: Sequence[int]) -> list[str]:
    """Return what each token adds to the text.

    Bytes of one character may be in several tokens: the last of them then has the character, the others a mark. A
    character that would not be seen, or turns the direction of what follows, stands as `<U+202E>`.

    Args:
        tokenizer: A `PreTrainedTokenizerBase`.
        ids: The tokens of a document, from its begin.
    """
    texts: list[str] = []
    before = read = 0  # where the tokens begin that are decoded again before a new one, and those that are not read yet
    for end in range(1, len(ids) + 1):
        old, new = (_decoded(tokenizer, ids[before:stop]) for stop in (read, end))
        if new.endswith(_BROKEN) and end < len(ids):
            texts.append(_PART)
            continue
        texts.append(visible(new[len(old) :]) or _PART)
        before, read = read, end
    return texts


def visible(text: str) -> str:
    """Return text in which every character is seen, but for spaces, tabs and ends of lines."""
    return "".join(each if _is_seen(each) else f"<U+{ord(each):04X}>" for each in text)


def _is_seen(character: str) -> bool:
    return character in _KEPT or unicodedata.category(character) not in _UNSEEN


def _decoded(tokenizer: Any, ids: Sequence[int]) -> str:
    text: str = tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)
    return text
