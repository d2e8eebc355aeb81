"""From a strict schema to an error that a person can act on: every fault of a document at once, each with its place."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from wmtp.errors import WmtpError
from wmtp.untrusted import MAX_SHOWN, did_you_mean, first_few, plain, show

# Begins the tag of a type that was chosen among several; pydantic puts tags into paths, where nobody wrote them.
CHOICE = "choice:"


class StrictModel(BaseModel):
    """Base of everything parsed at the door: frozen, no coercion, unknown keys refused."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)


@dataclass(frozen=True)
class Fault:
    """One thing wrong with a document.

    Attributes:
        path: Where: keys and indexes from the document's root.
        problem: What is wrong there, with what was found.
        hint: What to write instead, where that is known.
    """

    path: tuple[int | str, ...]
    problem: str
    hint: str = ""

    def __str__(self) -> str:
        dotted = ".".join(plain(part) if isinstance(part, str) else str(part) for part in self.path)
        return " ".join(filter(None, (dotted, self.problem)))


class FieldFaults(ValueError):
    """Raised by a validator: what is wrong with its field, each fault with its path below that field."""

    def __init__(self, *faults: Fault) -> None:
        super().__init__("; ".join(map(str, faults)))
        self.faults = faults


def model_faults(error: ValidationError, model: type[BaseModel]) -> list[Fault]:
    """Turn everything that pydantic found wrong into faults that name the nearest known field or value."""
    details = error.errors(include_url=False)
    # Only the first are ever shown: no search for near names for the other 100,000 of a hostile file.
    told = [fault for detail in details[:MAX_SHOWN] for fault in _faults(detail, model)]
    return told + [Fault(_path(detail), detail["msg"]) for detail in details[MAX_SHOWN:]]


def faults_error(faults: Sequence[Fault], *, where: str, error: type[WmtpError], hint: str) -> WmtpError:
    """Return one `error` for all faults of the file `where`; a single fault brings its own hint, if it has one."""
    if len(faults) == 1:
        return error(f"{where}: {faults[0]}", hint=faults[0].hint or hint)
    listed = [f"{fault}; {fault.hint}" if fault.hint else str(fault) for fault in faults]
    return error(f"{where}: {len(faults):,} faults", hint=hint, faults=first_few(listed))


def _faults(detail: ErrorDetails, model: type[BaseModel]) -> list[Fault]:
    raised = detail.get("ctx", {}).get("error")
    if isinstance(raised, FieldFaults):
        return [Fault((*_path(detail), *fault.path), fault.problem, fault.hint) for fault in raised.faults]
    return [_fault(detail, model)]


def _fault(detail: ErrorDetails, model: type[BaseModel]) -> Fault:
    path, kind, found = _path(detail), detail["type"], detail.get("input")
    if kind == "extra_forbidden":
        known = _field_names(model, path[:-1])
        return Fault(path, f"is not a known field{did_you_mean(str(path[-1]), known)}")
    if kind == "missing":
        return Fault(path, "is missing")
    if kind == "literal_error":
        known = re.findall(r"'([^']*)'", detail["ctx"]["expected"])
        return Fault(
            path, f"is {show(found)}", f"use one of {', '.join(map(repr, known))}{did_you_mean(str(found), known)}"
        )
    return Fault(path, f"is {show(found)}: {detail['msg'][0].lower()}{detail['msg'][1:]}")


def _path(detail: ErrorDetails) -> tuple[int | str, ...]:
    return tuple(part for part in detail["loc"] if not str(part).startswith(CHOICE))


def _field_names(model: type[BaseModel], path: Sequence[int | str]) -> list[str]:
    for part in path:
        field = model.model_fields.get(str(part))
        model = next(_models_in(field.annotation), model) if field else model
    return [field.alias or name for name, field in model.model_fields.items()]


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from _models_in(inner)
