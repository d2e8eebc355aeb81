"""What a comparison of two checkpoints found, as values and as lines for a person."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from wmtp.checkpoint.tensors import TensorInfo
from wmtp.comparison.values import ValueDifference, total_difference
from wmtp.untrusted import first_few, plain, show


@dataclass(frozen=True, slots=True)
class FieldDifference:
    """A field that two JSON files of one name do not share.

    Attributes:
        file: The file.
        path: Where in it, dotted, safe to print.
        a: Its value in A as JSON text; None: it is not there.
        b: Its value in B as JSON text; None: it is not there.
    """

    file: str
    path: str
    a: str | None
    b: str | None

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain JSON values; a side that lacks the field is left out."""
        sides = {side: json.loads(text) for side, text in (("a", self.a), ("b", self.b)) if text is not None}
        return {"file": self.file, "path": self.path, **sides}

    def __str__(self) -> str:
        found = {side: _safe(text) for side, text in (("A", self.a), ("B", self.b)) if text is not None}
        if len(found) == 1:
            return "".join(f"{self.path}: only in {side}: {text}" for side, text in found.items())
        return f"{self.path}: {found['A']} in A, {found['B']} in B"


@dataclass(frozen=True, slots=True)
class FileDifference:
    """A file that is not the same in both, weights left aside.

    Attributes:
        name: Its name.
        size_a: Bytes in A; None: it is not there.
        size_b: Bytes in B; None: it is not there.
    """

    name: str
    size_a: int | None
    size_b: int | None

    def __str__(self) -> str:
        name = plain(self.name)
        if self.size_a is None or self.size_b is None:
            side, size = ("A", self.size_a) if self.size_b is None else ("B", self.size_b)
            return f"{name}: only in {side}, {size:,} bytes"
        if self.size_a == self.size_b:
            return f"{name}: other bytes, {self.size_a:,} in both"
        return f"{name}: {self.size_a:,} bytes in A, {self.size_b:,} in B"


@dataclass(frozen=True, slots=True)
class TensorDifference:
    """A tensor that is not the same in both.

    Attributes:
        name: The name by which it was compared.
        a: What A's header says of it; None: A has none of that name.
        b: What B's header says of it; None: B has none of that name.
        values: How much the values differ; None: they were not compared.
    """

    name: str
    a: TensorInfo | None
    b: TensorInfo | None
    values: ValueDifference | None = None

    @property
    def kind(self) -> str:
        """What sets the two apart: `only in A`, `only in B`, `shape`, `dtype`, `values` or, of equal values, `bits`."""
        if self.a is None or self.b is None:
            return "only in B" if self.a is None else "only in A"
        if self.a.shape != self.b.shape:
            return "shape"
        if self.a.dtype != self.b.dtype:
            return "dtype"
        return "values" if self.values is not None and self.values.num_different else "bits"

    @property
    def order(self) -> tuple[bool, float, float, str]:
        """By this the most different come first: those that cannot be measured, then by relative L2 difference."""
        if self.values is None:
            return (False, 0.0, 0.0, self.name)
        relative = self.values.relative_l2
        return (True, -math.inf if relative is None else -relative, -self.values.max_abs, self.name)

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain JSON values."""
        sides = {
            side: {"name": info.name, "dtype": info.dtype, "shape": list(info.shape), "file": info.file}
            for side, info in (("a", self.a), ("b", self.b))
            if info is not None
        }
        values = {"values": _figures(self.values)} if self.values is not None else {}
        return {"name": self.name, "kind": self.kind, **sides, **values}

    def __str__(self) -> str:
        name, forms = plain(self.name), [_form(info) for info in (self.a, self.b) if info is not None]
        if len(forms) == 1:
            return f"{name}: {self.kind}, {forms[0]}"
        form = forms[0] if forms[0] == forms[1] else f"{forms[0]} in A, {forms[1]} in B"
        return f"{name}, {form}{_measured(self.values)}"


@dataclass(frozen=True)
class CheckpointDiff:
    """What two checkpoints have in common and what not.

    Attributes:
        a: The address of the one.
        b: The address of the other.
        fields: Fields of metadata.json and config.json that differ.
        files: Other files that differ; those with the weights are left aside.
        tensors: Tensors that differ, the most different first.
        num_common: Tensors whose names both have.
        values_read: Whether values were compared; otherwise only what the headers say.
        notes: What else a reader should know.
    """

    a: str
    b: str
    fields: tuple[FieldDifference, ...]
    files: tuple[FileDifference, ...]
    tensors: tuple[TensorDifference, ...]
    num_common: int
    values_read: bool
    notes: tuple[str, ...] = ()

    @property
    def is_equal(self) -> bool:
        """Whether nothing was found that differs."""
        return not (self.fields or self.files or self.tensors)

    @property
    def overall(self) -> ValueDifference | None:
        """How much the tensors whose values were measured differ, all together; None where none were."""
        measured = [tensor.values for tensor in self.tensors if tensor.values is not None]
        return total_difference(measured) if measured else None

    @property
    def verdict(self) -> str:
        """The whole in one line."""
        unread = "" if self.values_read else "; values were not read"
        others = [f"fields that differ: {len(self.fields):,}"] if self.fields else []
        others += [f"files that differ: {len(self.files):,}"] if self.files else []
        if not self.tensors:
            what = "equal" if self.is_equal else f"same tensors, other {'metadata' if self.fields else 'files'}"
            return "; ".join([what, *others]) + unread
        kinds = Counter(tensor.kind for tensor in self.tensors)
        told = [
            f"{count:,} {kind}" if kind.startswith("only") else f"{count:,} of {self.num_common:,} differ in {kind}"
            for kind, count in kinds.items()
        ]
        return "; ".join([f"tensors: {', '.join(told)}", *others]) + unread

    def to_dict(self) -> dict[str, Any]:
        """Return the comparison as plain JSON values."""
        return {
            "a": self.a,
            "b": self.b,
            "equal": self.is_equal,
            "verdict": self.verdict,
            "values_read": self.values_read,
            "num_common": self.num_common,
            "fields": [field.to_dict() for field in self.fields],
            "files": [asdict(file) for file in self.files],
            "tensors": [tensor.to_dict() for tensor in self.tensors],
            "overall": None if self.overall is None else _figures(self.overall),
            "notes": list(self.notes),
        }

    def summary(self) -> list[str]:
        """Return the comparison in lines for a person: the verdict, then of each kind the first 20 and a count."""
        names = dict.fromkeys(field.file for field in self.fields)
        parts: list[tuple[str, Iterable[object]]] = [
            *((name, [field for field in self.fields if field.file == name]) for name in names),
            ("files", self.files),
            ("tensors", self.tensors),
        ]
        lines = [self.verdict, *(line for title, found in parts for line in _section(title, found))]
        if self.overall is not None:
            lines.append(f"all of them that were measured{_measured(self.overall)}")
        return [*lines, *self.notes]


def _section(title: str, found: Iterable[object]) -> list[str]:
    lines = first_few([str(item) for item in found])
    return [title, *(f"  {line}" for line in lines)] if lines else []


def _form(info: TensorInfo) -> str:
    return f"{info.dtype} {show(list(info.shape))}"


def _safe(text: str) -> str:
    return show(json.loads(text))


def _measured(values: ValueDifference | None) -> str:
    if values is None:
        return ""
    if not values.num_different:
        return ": the values are the same"
    relative = "not to be had" if values.relative_l2 is None else f"{values.relative_l2:.3g}"
    odd = f", {values.num_not_finite:,} of them with NaN or infinity" if values.num_not_finite else ""
    nan = f", NaN in both at {values.num_nan_in_both:,} places" if values.num_nan_in_both else ""
    return (
        f": {values.num_different:,} of {values.num_values:,} values differ{odd}, by at most {values.max_abs:.3g},"
        f" relative L2 {relative}{nan}"
    )


def _figures(values: ValueDifference) -> dict[str, Any]:
    figures = {**asdict(values), "relative_l2": values.relative_l2}
    # JSON has no infinity; a norm beyond float64 is none that can be told.
    return {name: found if found is None or math.isfinite(found) else None for name, found in figures.items()}
