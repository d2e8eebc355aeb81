"""Holding a tokenizer that a library made to the ids that tokenizer.json itself makes."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import Any, Protocol

from wmtp.errors import CheckpointError
from wmtp.trust.guards import construction_errors
from wmtp.untrusted import show

_logger = logging.getLogger(__name__)

_TOKENIZER_FILE, _SETTINGS_FILE = "tokenizer.json", "tokenizer_config.json"
# What tokenizers differ in: runs of spaces, newlines, digits, case, scripts without spaces, forms of one character,
# characters of several code points, and the marks that stand for spaces in vocabularies.
PROBES = (
    "Hello, world! It's 2 o'clock; they'll DON'T.",
    "two  three   four    spaces,\ttab \t and\u00a0fixed space",
    " leading",
    "  leading two",
    "trailing  ",
    "lines\n\n\nof\r\n  text\n",
    "1234567890 3.14159 1,000,000 v2x64 ٣٤",
    "def f(x):\n    return {x: [1, 2]} != None  # done\n\tpass\n",
    "한국어 문장입니다. 漢字とかな交じり文。中文字符",
    "naïve café \uff21\uff22\uff23 ﬁ e\u0301",
    "👩‍👩‍👧 🙂🏽 🇰🇷",
    "lower UPPER MixedCase snake_case",
    "marks ▁ Ġ ## </w>",
    "",
)
_MAX_SUSPECTS = 8
_MAX_TOKENS = 1024  # each added token is one more probe
# Settings by which transformers makes other tokens than the file.
_SETTINGS = (
    *("tokenizer_class", "legacy", "add_prefix_space", "add_bos_token", "add_eos_token", "split_special_tokens"),
    *("do_lower_case", "added_tokens_decoder", "extra_special_tokens", "additional_special_tokens"),
)


class Tokenizer(Protocol):
    """What is used of a tokenizer of transformers."""

    @property
    def special_tokens_map(self) -> Mapping[str, Any]:
        """Its special tokens by role."""
        ...

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        """Return the ids of a text."""
        ...


def held_to_file(made: Any, files: Mapping[str, bytes], where: str, rebuild: Callable[..., Any]) -> Any:
    """Return a tokenizer that makes the ids that the checkpoint's tokenizer.json makes.

    transformers builds the tokenizers of some classes anew, from the vocabulary alone and by rules of the class.

    Args:
        made: The tokenizer that transformers made.
        files: The files of the checkpoint's tokenizer; without a tokenizer.json there is nothing to hold it to.
        where: The checkpoint, as errors show it.
        rebuild: Makes a tokenizer of transformers around one of the tokenizers library, by `tokenizer_object`.

    Raises:
        CheckpointError: If even a tokenizer around the file's own makes other ids of a text than the file does.
    """
    if _TOKENIZER_FILE not in files:
        return made
    comparison = _Comparison(files, where)
    if comparison.difference(made) is None:
        return made
    restored = comparison.restored(made, rebuild)
    if (difference := comparison.difference(restored)) is not None:
        text, ours, theirs = difference
        raise CheckpointError(
            f"{comparison.suspects()}: of {show(text)} transformers makes the tokens {show(theirs)},"
            f" {_TOKENIZER_FILE} makes {show(ours)}",
            hint=f"mend the setting that contradicts {_TOKENIZER_FILE}, or save the tokenizer anew: save_pretrained of"
            " the one that the weights were trained with",
        )
    said = "transformers would make other tokens than tokenizer.json, which is used as it is written"
    _logger.warning("%s: %s", comparison.suspects(), said)
    return restored


class _Comparison:
    """The tokenizer of a tokenizer.json, beside which others are held."""

    def __init__(self, files: Mapping[str, bytes], where: str) -> None:
        from tokenizers import Tokenizer as FileTokenizer

        self._where = where
        self._own = FileTokenizer.from_str(files[_TOKENIZER_FILE].decode())
        self._own.no_truncation()
        self._own.no_padding()
        self._settings: dict[str, Any] = json.loads(files.get(_SETTINGS_FILE, b"{}"))
        self._config: dict[str, Any] = json.loads(files.get("config.json", b"{}"))

    def difference(self, made: Tokenizer) -> tuple[str, list[int] | None, list[int] | None] | None:
        """Return the first text of which a tokenizer makes other ids, with the file's and its own; None: of none."""
        for text in self._probes(made):
            for special in (False, True):
                ours = self._ids(lambda: self._own.encode(text, add_special_tokens=special).ids)  # noqa: B023
                theirs = self._ids(lambda: list(made.encode(text, add_special_tokens=special)))  # noqa: B023
                if ours != theirs:
                    return text, ours, theirs
        return None

    def restored(self, made: Any, rebuild: Callable[..., Any]) -> Any:
        """Return a tokenizer around the file's, with the special tokens of another that are the checkpoint's own."""
        special = {
            role: token
            for role, token in made.special_tokens_map.items()
            if role in self._settings or self._own.token_to_id(str(token)) is not None
        }
        return rebuild(
            tokenizer_object=self._own,
            model_max_length=made.model_max_length,
            padding_side=made.padding_side,
            truncation_side=made.truncation_side,
            clean_up_tokenization_spaces=made.clean_up_tokenization_spaces,
            model_input_names=made.model_input_names,
            chat_template=made.chat_template,
            **special,
        )

    def suspects(self) -> str:
        """Return what picks other tokens than the file has: the files and their settings, as an error names them."""
        added = {token.content for token in self._own.get_added_tokens_decoder().values()}
        unknown = [key for key, value in self._settings.items() if key.endswith("_token") and _text(value) not in added]
        settings = {key: self._settings[key] for key in (*_SETTINGS, *unknown) if self._settings.get(key) is not None}
        # Where none of these is known to do it, any of them may.
        places = [(_SETTINGS_FILE, settings or dict(islice(self._settings.items(), _MAX_SUSPECTS)))]
        if "tokenizer_class" not in settings:
            places.insert(0, ("config.json", self._config))
        return "; ".join(
            f"{self._where}/{file}: {', '.join(f'{key} is {show(value)}' for key, value in found.items())}"
            for file, found in places
            if found
        )

    def _probes(self, made: Tokenizer) -> Iterator[str]:
        yield from PROBES
        added = [token.content for _, token in sorted(self._own.get_added_tokens_decoder().items())]
        # A token that the class brings and the checkpoint does not know gets an id beyond the vocabulary.
        brought = [str(token) for role, token in made.special_tokens_map.items() if role not in self._settings]
        for token in dict.fromkeys([*added[:_MAX_TOKENS], *brought]):
            yield f"x{token}y {token} z"

    def _ids(self, encode: Callable[[], list[int]]) -> list[int] | None:
        """Return ids, or None where a text cannot be written in a vocabulary."""
        try:
            with construction_errors(f"{self._where}/{_TOKENIZER_FILE}", "the tokens of a text"):
                return encode()
        except CheckpointError:
            return None


def _text(token: Any) -> Any:
    return token.get("content") if isinstance(token, dict) else token
