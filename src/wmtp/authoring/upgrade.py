"""Bringing an older metadata.json to storage version 2.0. May guess; every guess is a note for a person to check.

What is known of older files, and what becomes of it:

- `wmtp_type`: `mtp_model` and `mtp_native` are base models; other spellings with the same words (`base`, `reference`,
  `reward`) get `_model` behind them.
- `training_algorithm`: `baseline_mtp`, `base_training` and `sheared_training` are `baseline`, `mtp_training` is
  `mtp`, `reward_modeling` is `critic` (the reward models of those days were made for the critic), `critic_wmtp` and
  `rho1_wmtp` lose their ending. `base_training` of a model with more than one head is `mtp`.
- `algorithm_compatibility`: names with `_` get `-`; when absent, every algorithm that has a role for the type.
- `loading_strategy`: when absent, what `init` would draft. Empty strings and missing lists become their defaults, files
  that are no longer there leave `required_files`, and the weights that are there join them.
- Fields that 2.0 does not have go to `extra`. Nothing is dropped without a note.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wmtp.authoring.init import draft_metadata, fitting_algorithms
from wmtp.authoring.mapping import mended_mapping
from wmtp.checkpoint.configuration import read_config
from wmtp.checkpoint.contents import Checkpoint, small_files
from wmtp.checkpoint.headers import read_tensors_and_notes, weight_files
from wmtp.errors import MetadataError, NotFoundError, WmtpError
from wmtp.metadata.absent import absent_hint
from wmtp.metadata.file import METADATA_FILE, dump_metadata, parse_metadata, write_metadata
from wmtp.metadata.schema import STORAGE_VERSION, LoadingStrategy, ModelMetadata, StateDictMapping
from wmtp.registry import algorithms
from wmtp.storage.opening import open_store
from wmtp.storage.store import Store
from wmtp.untrusted import MAX_JSON_BYTES, parse_json_object, show

BACKUP_FILE = f"{METADATA_FILE}.bak"

_TYPES = {
    "mtp_model": "base_model",
    "mtp_native": "base_model",
    "base": "base_model",
    "reference": "reference_model",
    "reward": "reward_model",
}
_MADE_BY = {
    "base_training": "baseline",
    "sheared_training": "baseline",
    "baseline_mtp": "baseline",
    "mtp_training": "mtp",
    "reward_modeling": "critic",
    "critic_wmtp": "critic",
    "rho1_wmtp": "rho1",
}


@dataclass(frozen=True)
class Upgrade:
    """An older metadata.json beside what it becomes.

    Attributes:
        old_text: The file as it is.
        metadata: What it becomes.
        notes: What was guessed, moved or dropped.
    """

    old_text: str
    metadata: ModelMetadata
    notes: tuple[str, ...]

    @property
    def new_text(self) -> str:
        """The file as it would be."""
        return dump_metadata(self.metadata)


def upgrade_metadata(directory: Path) -> Upgrade | None:
    """Return what the metadata.json of a directory becomes, or None when it is up to date.

    One that is, but whose mapping does not fit the tensors, gets the mapping that they need where one is found.

    Raises:
        WmtpError: If there is no such file, it is not JSON, or something in it has no counterpart.
    """
    store = open_store(directory)
    where = f"{store.uri / METADATA_FILE}"
    if not store.has(METADATA_FILE):
        raise NotFoundError(f"{where}: no such file", hint=absent_hint(store))
    data = store.read_bytes(METADATA_FILE, max_bytes=MAX_JSON_BYTES)
    old = parse_json_object(data, where=where, error=MetadataError)
    try:
        return _remapped(store, old, parse_metadata(data, where=where))
    except MetadataError:
        notes: list[str] = []
        new = _upgraded(store, old, notes)
        metadata = parse_metadata(json.dumps(new).encode(), where=f"{where}, upgraded")
        return Upgrade(_text(old), metadata, tuple(notes))


def _text(document: dict[str, Any]) -> str:
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def _remapped(store: Store, old: dict[str, Any], metadata: ModelMetadata) -> Upgrade | None:
    try:
        checkpoint = Checkpoint(store, metadata, read_config(store), read_tensors_and_notes(store)[0])
        found = mended_mapping(checkpoint)
    except WmtpError:
        return None  # of today, whatever else is wrong: 'wmtp validate' says it
    return Upgrade(_text(old), found[0], tuple(found[1])) if found else None


def write_upgrade(directory: Path, upgrade: Upgrade) -> Path:
    """Write the new metadata.json, and keep the old one beside it; returns where the old one is.

    Raises:
        MetadataError: If an older backup is there, which is never overwritten.
    """
    path, backup = directory / METADATA_FILE, directory / BACKUP_FILE
    try:
        # A hard link cannot replace an existing file, and the name metadata.json stands throughout.
        backup.hardlink_to(path)
    except FileExistsError as error:
        raise MetadataError(
            f"{backup}: an older backup is there", hint="move it away; it is never overwritten"
        ) from error
    write_metadata(directory, upgrade.metadata)
    return backup


def _upgraded(store: Store, old: dict[str, Any], notes: list[str]) -> dict[str, Any]:
    new = {key: value for key, value in old.items() if key in _fields()}
    if extra := {key: value for key, value in old.items() if key not in _fields()}:
        notes.append(f"moved to extra, as 2.0 has no such fields: {', '.join(map(show, extra))}")
        kept = old.get("extra") or {}
        new["extra"] = {**(kept if isinstance(kept, dict) else {"extra": kept}), **extra}
    new["storage_version"] = STORAGE_VERSION
    new["base_architecture"] = _architecture(store, old, notes)
    new["wmtp_type"] = _known(_TYPES, "wmtp_type", old, notes)
    new["training_algorithm"] = _made_by(old, notes)
    if "loading_strategy" in old:
        new["loading_strategy"] = _strategy(store, old["loading_strategy"], notes)
    else:
        _drafted(store, new, notes)
    new["algorithm_compatibility"] = _compatibility(old, new["wmtp_type"], notes)
    return new


def _fields() -> set[str]:
    return {field.alias or name for name, field in ModelMetadata.model_fields.items()}


def _known(spellings: dict[str, str], field: str, old: dict[str, Any], notes: list[str]) -> Any:
    found = old.get(field)
    if not isinstance(found, str) or found not in spellings:
        return found
    notes.append(f"{field}: {show(found)} is now {spellings[found]!r}")
    return spellings[found]


def _made_by(old: dict[str, Any], notes: list[str]) -> Any:
    several_heads = any(isinstance(old.get(field), int) and old[field] > 1 for field in ("horizon", "n_heads"))
    is_mtp = several_heads and old.get("wmtp_type") in ("mtp_model", "mtp_native", "base_model")
    spellings = {**_MADE_BY, "base_training": "mtp"} if is_mtp else _MADE_BY
    found = _known(spellings, "training_algorithm", old, notes)
    if found in (None, "unknown"):
        notes.append("training_algorithm: not known, 'baseline' was put there")
        return "baseline"
    return found


def _architecture(store: Store, old: dict[str, Any], notes: list[str]) -> Any:
    if (found := old.get("base_architecture")) not in (None, "unknown"):
        return found
    model_type = read_config(store).get("model_type")
    notes.append(f"base_architecture: {show(model_type)}, the model_type of config.json")
    return model_type


def _strategy(store: Store, old: Any, notes: list[str]) -> Any:
    if not isinstance(old, dict):
        return old
    new = {key: value for key, value in old.items() if key in LoadingStrategy.model_fields}
    if dropped := sorted(set(old) - set(new)):
        notes.append(f"loading_strategy: dropped, as 2.0 has no such fields: {', '.join(map(show, dropped))}")
    new["state_dict_mapping"] = _mapping(old.get("state_dict_mapping") or {}, notes)
    new["required_files"] = _required(store, old.get("required_files"), notes)
    return new


def _mapping(old: Any, notes: list[str]) -> Any:
    if not isinstance(old, dict):
        return old
    if dropped := sorted(set(old) - set(StateDictMapping.model_fields)):
        notes.append(f"state_dict_mapping: dropped, as 2.0 has no such fields: {', '.join(map(show, dropped))}")
    # An empty prefix meant none, and so did null.
    return {key: value for key, value in old.items() if key not in dropped and value not in ("", None)}


def _required(store: Store, old: Any, notes: list[str]) -> Any:
    named: list[Any] = old if isinstance(old, list) else []
    names = [name for position, name in enumerate(named) if name not in named[:position]]
    present = [name for name in names if isinstance(name, str) and store.has(name)]
    if absent := [name for name in names if name not in present]:
        notes.append(f"required_files: not there, so taken out: {', '.join(map(show, absent))}")
    added = [name for name in [*small_files(store), *_weights(store)] if name not in present]
    if added:
        notes.append(f"required_files: put in: {', '.join(map(show, added))}")
    return [*present, *added]


def _weights(store: Store) -> list[str]:
    try:
        return weight_files(store)[:1]  # of shards the index, which names them
    except WmtpError:
        return []  # nothing to require; 'wmtp validate' will say what is wrong with the weights


def _drafted(store: Store, new: dict[str, Any], notes: list[str]) -> None:
    draft = draft_metadata(store)
    notes += [f"loading_strategy: drafted; {note}" for note in draft.notes]
    new["loading_strategy"] = draft.metadata.loading_strategy.model_dump(mode="json", exclude_none=True)


def _compatibility(old: dict[str, Any], wmtp_type: Any, notes: list[str]) -> Any:
    found = old.get("algorithm_compatibility")
    if found is None:
        notes.append("algorithm_compatibility: every algorithm with a role for this type was put there")
        return fitting_algorithms(wmtp_type)
    if not isinstance(found, list):
        return found
    names = list(dict.fromkeys(str(name).replace("_", "-") for name in found))
    if unknown := [name for name in names if name not in algorithms.names()]:
        notes.append(f"algorithm_compatibility: taken out, as no such algorithm is registered: {unknown}")
    return [name for name in names if name not in unknown]
