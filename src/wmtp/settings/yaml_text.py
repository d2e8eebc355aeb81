"""From YAML text to plain values, with the place of each and everything wrong on the way.

Strict YAML 1.2: one document, no duplicate keys, no tags, no aliases. What a plain word means is decided here
(`2e-5` is a number, `no` and `2024-01-01` are text), after `${VAR}` is expanded.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, NoReturn

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    Event,
    MappingEndEvent,
    MappingStartEvent,
    NodeEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)

from wmtp.errors import SettingsError
from wmtp.faults import Fault
from wmtp.untrusted import plain, show

KeyPath = tuple[int | str, ...]

_MAX_DEPTH = 64
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^${}]*))?\}")
# At most 25 digits: Python refuses to convert absurdly long numbers, and nothing here is counted in them.
_INTEGER = re.compile(r"[-+]?[0-9]{1,25}")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_WORDS: dict[str, bool | None] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}


@dataclass(frozen=True, order=True)
class Origin:
    """Where a value was written.

    Attributes:
        line: Line of the file, from 1; overrides come after every line.
        text: How an error names it: `recipe.yaml:12`, or `override train.max_steps=10`.
    """

    line: int
    text: str


@dataclass
class Composed:
    """What a YAML text holds.

    Attributes:
        value: Dicts, lists, strings, numbers, booleans, None.
        origins: The origin of every key and item.
        faults: What is wrong already, before any schema is applied.
    """

    value: Any = None
    origins: dict[KeyPath, Origin] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)


def compose(text: str, place: Callable[[int], Origin], path: KeyPath = ()) -> Composed:
    """Return the value of the one document in a text; None where there is none.

    Args:
        text: The YAML.
        place: Gives the origin of a line, counted from 1.
        path: Where the value belongs in the whole document.

    Raises:
        SettingsError: If the text is not YAML, or goes on in a way that leaves no sense in reading further.
    """
    composer = _Composer(place)
    try:
        composer.read(text, path)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem = " ".join(filter(None, (error.context, error.problem)))
        composer.stop(mark.line if mark else 0, f"is not YAML: {problem}", _syntax_hint(problem))
    except YAMLError as error:
        reason = plain(str(error).partition("\n")[0])
        composer.stop(0, f"is not YAML: {reason}", "remove control characters from the text")
    return composer.composed


class _Composer:
    """Turns parser events into plain values.

    It takes the parser's events instead of ruamel's constructors, which follow YAML 1.1 for dates, build tagged
    objects, and lose the line of a scalar.
    """

    def __init__(self, place: Callable[[int], Origin]) -> None:
        self.composed = Composed()
        self._place = place
        self._events: Iterator[Event] = iter(())

    def read(self, text: str, path: KeyPath) -> None:
        self._events = YAML(typ="safe", pure=True).parse(text)
        documents = 0
        for event in self._events:
            if isinstance(event, DocumentStartEvent):
                documents += 1
            if documents > 1:
                self.stop(event.start_mark.line, "a second document begins", "keep one document in a file")
            if isinstance(event, NodeEvent):
                self.composed.value = self._node(event, path)

    def stop(self, line: int, problem: str, hint: str) -> NoReturn:
        raise SettingsError(f"{self._place(line + 1).text}: {problem}", hint=hint)

    def _node(self, event: Any, path: KeyPath) -> Any:
        self.composed.origins[path] = self._place(event.start_mark.line + 1)
        if len(path) > _MAX_DEPTH:
            self.stop(event.start_mark.line, f"is nested deeper than {_MAX_DEPTH} levels", "flatten it")
        if isinstance(event, AliasEvent):
            return self._fault(path, f"is the alias *{event.anchor}", "write the value out; aliases are not read")
        if event.tag is not None:
            self._fault(path, f"has the tag {show(str(event.tag))}", "remove it; tags are not read")
        if isinstance(event, MappingStartEvent):
            return self._mapping(path)
        if isinstance(event, SequenceStartEvent):
            return self._sequence(path)
        text = self._expand(event.value, path)
        is_plain = event.implicit[0]
        return _plain_value(text) if is_plain else text

    def _mapping(self, path: KeyPath) -> dict[str, Any]:
        found: dict[str, Any] = {}
        while not isinstance(event := next(self._events), MappingEndEvent):
            if not isinstance(event, ScalarEvent):
                self.stop(event.start_mark.line, "has a key that is not a word", "write key: value")
            key: str = event.value
            if key in found:
                first = self.composed.origins[(*path, key)].text
                self._fault((*path, key), f"is given twice, first at {first}", "keep one of the two")
            found[key] = self._node(next(self._events), (*path, key))
            # A value may begin lines below its key, and a reader looks for the key.
            self.composed.origins[(*path, key)] = self._place(event.start_mark.line + 1)
        return found

    def _sequence(self, path: KeyPath) -> list[Any]:
        found: list[Any] = []
        while not isinstance(event := next(self._events), SequenceEndEvent):
            found.append(self._node(event, (*path, len(found))))
        return found

    def _expand(self, text: str, path: KeyPath) -> str:
        def value_of(match: re.Match[str]) -> str:
            name, default = match.groups()
            found = os.environ.get(name)
            if not found and default is not None:  # as in a shell, `:-` also stands in for an empty variable
                return str(default)
            if found is None:
                hint = f"set it, or give a default: ${{{name}:-value}}"
                self._fault(path, f"names the environment variable {name}, which is not set", hint)
            return found or ""

        if "${" in _VARIABLE.sub("", text):
            self._fault(path, f"is {show(text)}, with a broken '${{'", "write ${VAR} or ${VAR:-default}")
        return _VARIABLE.sub(value_of, text)

    def _fault(self, path: KeyPath, problem: str, hint: str) -> None:
        self.composed.faults.append(Fault(path, problem, hint))


def _syntax_hint(problem: str) -> str:
    if "'\\t'" in problem:
        return "indent with spaces, not tabs"
    if "flow" in problem:
        return "close every bracket; ${VAR} between brackets needs quotes, or a line of its own"
    return "mend the line; text with special characters needs quotes"


def _plain_value(text: str) -> Any:
    if text in _WORDS:
        return _WORDS[text]
    if _INTEGER.fullmatch(text):
        return int(text)
    if _FLOAT.fullmatch(text):
        return float(text.replace(".", "") if text[-1].isalpha() else text)
    return text
