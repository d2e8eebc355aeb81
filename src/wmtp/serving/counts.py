"""How many modules config.json says that there are, held to how many the tensors hold."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from wmtp.checkpoint.configuration import CONFIG_FILE
from wmtp.checkpoint.families import HeadFamily
from wmtp.serving.programs import Program, Support
from wmtp.serving.verdict import Obstacle
from wmtp.untrusted import show
from wmtp.wording import counted

_NESTED = "text_config"


def text_part(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the part of a configuration that describes the language model: `text_config` where there is one."""
    nested = config.get(_NESTED)
    return nested if isinstance(nested, dict) else config


def whole_number(value: object, *, at_least: int = 1) -> int | None:
    """Return a foreign value if it is a whole number of some size; True is none."""
    return value if type(value) is int and value >= at_least else None


def declared_counts(family: HeadFamily, config: Mapping[str, Any]) -> dict[str, Any]:
    """Return every key that says how many modules there are, by its dotted path; null says nothing."""
    found = {}
    is_nested = text_part(config) is not config
    for key in family.counts:
        *objects, last = key.split(".")
        for start, part in ((f"{_NESTED}.", text_part(config)), ("", config)) if is_nested else (("", config),):
            inner: Any = part
            for name in objects:
                inner = inner.get(name) if isinstance(inner, dict) else None
            if isinstance(inner, dict) and inner.get(last) is not None:
                found[start + key] = inner[last]
    return found


def count_obstacles(
    program: Program, support: Support, family: HeadFamily, config: Mapping[str, Any], num_modules: int
) -> Iterator[Obstacle]:
    """Yield what is wrong with the number of modules that config.json declares."""
    counts = declared_counts(family, config)
    shared = family.shared_by is not None and text_part(config).get(family.shared_by) is True
    for path, found in counts.items():
        if fault := _fault(program, path, found, None if shared else num_modules):
            yield fault
    if not counts:
        yield from _undeclared(program, support, family, config, num_modules)
    elif text_part(config) is not config and all("." not in path for path in counts):
        path = next(iter(counts))
        problem = f"{path} stands at the top level, and this class keeps what describes its text in {_NESTED}"
        yield Obstacle(CONFIG_FILE, problem, f"move it to {_NESTED}.{path}")


def _fault(program: Program, path: str, found: object, num_modules: int | None) -> Obstacle | None:
    count = whole_number(found, at_least=0)
    if count is None:
        return Obstacle(CONFIG_FILE, f"{path} is {show(found)}, not a number of modules", _set(path, num_modules))
    if count == 0:
        return Obstacle(CONFIG_FILE, f"{path} is 0: {program.label} {program.on_zero}", _set(path, num_modules))
    if num_modules is None or count == num_modules:
        return None
    problem = f"{path} is {show(count)}, and the tensors hold {counted(num_modules, 'module')}"
    return Obstacle(
        CONFIG_FILE, problem, f"{_set(path, num_modules)}, or take all modules from the original checkpoint"
    )


def _undeclared(
    program: Program, support: Support, family: HeadFamily, config: Mapping[str, Any], num_modules: int
) -> Iterator[Obstacle]:
    """Yield what is wrong where no key tells the number."""
    assumed = family.fixed_count if family.fixed_count is not None else support.absent_count
    if assumed == num_modules:
        return
    held = f"and the tensors hold {counted(num_modules, 'module')}"
    start = "" if text_part(config) is config else f"{_NESTED}."
    if assumed is not None:
        problem = f"{program.label} takes {assumed} modules for granted, {held}"
    else:
        problem = f"{start}{family.counts[0]} is missing, {held}"
    hint = _set(start + family.counts[0], num_modules) if family.counts else "take all modules from the original"
    yield Obstacle(CONFIG_FILE, problem, hint)


def _set(path: str, num_modules: int | None) -> str:
    return f"set {path} to {num_modules or 'the number of modules'}"
