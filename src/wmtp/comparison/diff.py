"""Comparing two checkpoints: their declarations, their files, their tensors and values.

No model is built and no code runs, so that it needs no consent; a plain transformers directory will do as well.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wmtp.checkpoint.configuration import CONFIG_FILE, read_json
from wmtp.checkpoint.headers import read_tensors, weight_files
from wmtp.checkpoint.tensors import TensorInfo
from wmtp.comparison.differences import CheckpointDiff, FieldDifference, FileDifference, TensorDifference
from wmtp.comparison.values import StoredTensor, have_same_bytes, measure_difference
from wmtp.errors import MetadataError, PlanError
from wmtp.load_plan.mapping import map_names
from wmtp.metadata.file import METADATA_FILE, read_metadata
from wmtp.storage.opening import open_store
from wmtp.storage.store import Store
from wmtp.untrusted import plain, relative_name_fault

_MAX_COMPARED_BYTES = 256 << 20  # tokenizers are smaller, other weights are not
_MAX_COPIES_SOUGHT = 20  # each may cost a look at every tensor of its shape


@dataclass(frozen=True)
class _Side:
    """One of the two: its files, and its tensors by the names that count."""

    label: str
    store: Store
    tensors: dict[str, TensorInfo]

    def stored(self, name: str) -> StoredTensor:
        return StoredTensor(self.store, self.tensors[name])


def diff_checkpoints(
    a: str | Path, b: str | Path, *, values: bool = True, allow_symlinks: bool = False
) -> CheckpointDiff:
    """Compare two checkpoints.

    Tensors are compared by the names that the files give them. Where the two have no such name in common, but have
    some once each one's `state_dict_mapping` is applied, they are compared by those, and a note says so.

    Args:
        a: The address of the one; differences are relative to its values.
        b: The address of the other.
        values: Compare the values of tensors that both have in one shape; otherwise no weight is read.
        allow_symlinks: Follow links out of the directories.

    Raises:
        WmtpError: If metadata.json, config.json, a header or the shard index of either cannot be read.
    """
    stores = open_store(a, allow_symlinks=allow_symlinks), open_store(b, allow_symlinks=allow_symlinks)
    fields = [found for name in (METADATA_FILE, CONFIG_FILE) for found in _field_differences(name, *stores)]
    files, unread = _file_differences(*stores)
    one, two, notes = _sides(*stores)
    tensors = _tensor_differences(one, two, values=values)
    if values and any(found.kind == "dtype" for found in tensors):
        notes.append("values stored in different dtypes were compared in float64")
    if values:
        notes += [note for side, other in ((one, two), (two, one)) for note in _copies(side, other)]
    return CheckpointDiff(
        a=str(one.store.uri),
        b=str(two.store.uri),
        fields=tuple(fields),
        files=tuple(files),
        tensors=tuple(tensors),
        num_common=len(one.tensors.keys() & two.tensors.keys()),
        values_read=values,
        notes=tuple(notes + unread),
    )


def _field_differences(name: str, a: Store, b: Store) -> Iterator[FieldDifference]:
    if not (a.has(name) and b.has(name)):
        return  # a file that only one of them has is told as such
    for path, one, two in _leaves((), read_json(a, name), read_json(b, name)):
        dotted = ".".join(plain(part) if isinstance(part, str) else str(part) for part in path)
        yield FieldDifference(name, dotted, one, two)


def _leaves(
    path: tuple[int | str, ...], a: Any, b: Any
) -> Iterator[tuple[tuple[int | str, ...], str | None, str | None]]:
    """Every place at which two JSON values differ, with both as JSON text; None where one has nothing there."""
    if isinstance(a, dict) and isinstance(b, dict):
        for key in dict.fromkeys([*a, *b]):
            if key in a and key in b:
                yield from _leaves((*path, key), a[key], b[key])
            else:
                yield (*path, key), _text(a, key), _text(b, key)
    elif path[-1:] == ("required_files",) and _same_names(a, b):
        return  # their order means nothing
    elif isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        for position, (one, two) in enumerate(zip(a, b, strict=True)):
            yield from _leaves((*path, position), one, two)
    elif (one_text := json.dumps(a, sort_keys=True)) != (two_text := json.dumps(b, sort_keys=True)):
        yield path, one_text, two_text


def _same_names(a: Any, b: Any) -> bool:
    return isinstance(a, list) and isinstance(b, list) and sorted(map(str, a)) == sorted(map(str, b))


def _text(document: dict[str, Any], key: str) -> str | None:
    return json.dumps(document[key]) if key in document else None


def _file_differences(a: Store, b: Store) -> tuple[list[FileDifference], list[str]]:
    """The files that differ, and a note for each that is too large to be read only to see whether it does."""
    sizes_a, sizes_b = ({info.name: info.size_bytes for info in store.list_files()} for store in (a, b))
    found, notes = [], []
    for name in sorted({*sizes_a, *sizes_b} - {*weight_files(a), *weight_files(b)}):
        difference = FileDifference(name, sizes_a.get(name), sizes_b.get(name))
        if difference.size_a is None or difference.size_b is None:
            found.append(difference)
        elif name in (METADATA_FILE, CONFIG_FILE):
            continue  # told field by field
        elif difference.size_a != difference.size_b:
            found.append(difference)
        elif fault := _unread(name, difference.size_a):
            notes.append(f"{plain(name)} {fault}, and was not compared")
        elif not have_same_bytes(_whole(a, name), _whole(b, name)):
            found.append(difference)
    return found, notes


def _unread(name: str, size_bytes: int) -> str | None:
    too_large = f"has {size_bytes:,} bytes in both" if size_bytes > _MAX_COMPARED_BYTES else None
    return relative_name_fault(name) or too_large  # a store opens no file with such a name


def _whole(store: Store, name: str) -> StoredTensor:
    size = store.stat(name).size_bytes
    return StoredTensor(store, TensorInfo(name, "U8", (size,), name, 0, size))


def _sides(a: Store, b: Store) -> tuple[_Side, _Side, list[str]]:
    """Both with the names by which they are compared, and what there is to say of that."""
    one, two = (_Side(label, store, _by_name(read_tensors(store))) for label, store in (("A", a), ("B", b)))
    notes = []
    num_files = [len({info.file for info in side.tensors.values()}) for side in (one, two)]
    if num_files[0] != num_files[1]:
        notes.append(
            f"the tensors are in {num_files[0]} files in A, {num_files[1]} in B: the model is the same for that"
        )
    if one.tensors.keys() & two.tensors.keys():
        return one, two, notes
    try:
        mapped = _mapped(one), _mapped(two)
    except (MetadataError, PlanError) as error:
        return one, two, [*notes, f"no tensor has the same name in both, and {error.problem}"]
    if not mapped[0].tensors.keys() & mapped[1].tensors.keys():
        return one, two, [*notes, "no tensor has the same name in both, with or without state_dict_mapping"]
    return *mapped, [*notes, "no tensor has the same name in both: compared by the names that state_dict_mapping gives"]


def _by_name(tensors: list[TensorInfo]) -> dict[str, TensorInfo]:
    return {info.name: info for info in tensors}


def _mapped(side: _Side) -> _Side:
    if not side.store.has(METADATA_FILE):
        return side
    mapping = read_metadata(side.store).loading_strategy.state_dict_mapping
    names = map_names(mapping, side.tensors, where=str(side.store.uri))
    return _Side(side.label, side.store, {names[name].name: info for name, info in side.tensors.items()})


def _tensor_differences(a: _Side, b: _Side, *, values: bool) -> list[TensorDifference]:
    found = []
    for name in dict.fromkeys([*a.tensors, *b.tensors]):
        one, two = a.tensors.get(name), b.tensors.get(name)
        if one is None or two is None or one.shape != two.shape or not values:
            difference = TensorDifference(name, one, two)
        elif one.dtype == two.dtype and have_same_bytes(a.stored(name), b.stored(name)):
            continue
        else:
            difference = TensorDifference(name, one, two, measure_difference(a.stored(name), b.stored(name)))
        if difference.kind != "bits" or difference.values is not None:
            found.append(difference)
    return sorted(found, key=lambda difference: difference.order)


def _copies(side: _Side, other: _Side) -> Iterator[str]:
    """A note for each tensor that only one has, where it repeats another one: as a tied weight that was saved twice."""
    alone = [name for name, info in side.tensors.items() if name not in other.tensors and info.num_elements]
    for name in alone[:_MAX_COPIES_SOUGHT]:
        info = side.tensors[name]
        alike = (
            key
            for key, t in side.tensors.items()
            if key in other.tensors and (t.dtype, t.shape) == (info.dtype, info.shape)
        )
        original = next((key for key in alike if have_same_bytes(side.stored(name), side.stored(key))), None)
        if original is not None:
            yield f"{plain(name)}, only in {side.label}, is a copy of {plain(original)} there"
