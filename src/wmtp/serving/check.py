"""From an address and a program to a verdict; reads config.json, metadata.json where there is one, and headers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from wmtp.checkpoint.configuration import CONFIG_FILE, read_json
from wmtp.checkpoint.families import family_of
from wmtp.checkpoint.headers import read_tensors, weights_name
from wmtp.checkpoint.tensors import TensorInfo
from wmtp.errors import CheckpointError
from wmtp.metadata.absent import is_medusa
from wmtp.metadata.file import METADATA_FILE, read_metadata
from wmtp.serving.counts import declared_counts
from wmtp.serving.medusa import medusa_obstacles, medusa_verdict, no_medusa, reference_obstacle
from wmtp.serving.modules import head_like
from wmtp.serving.native import native_heads, native_obstacles, native_verdict
from wmtp.serving.programs import Program
from wmtp.serving.verdict import Verdict, refuse
from wmtp.storage.opening import open_store
from wmtp.storage.snapshot import retried_if_changed
from wmtp.storage.store import Store
from wmtp.storage.uri import ModelURI
from wmtp.untrusted import show, show_all

_TARGETS = {"linear": " --to vllm-medusa", "resblock": " --to vllm-medusa", "deepseek": " --to native"}


def check_serving(uri: str | Path | ModelURI, program: Program, *, allow_symlinks: bool = False) -> tuple[str, Verdict]:
    """Say what a program would do with the prediction heads of a checkpoint; no weight is read.

    The checkpoint may have a metadata.json or not: no program that serves reads it.

    Args:
        uri: The checkpoint, or a directory of Medusa heads.
        program: The program, one of `wmtp.serving.table.PROGRAMS`.
        allow_symlinks: Follow links that leave a local directory.

    Returns:
        The address as it is shown, and the verdict.

    Raises:
        CheckpointError: If it would not load the heads or not draft with them, with everything that stands in the way;
            or if there are none.
        WmtpError: If a file cannot be had, or is not what its name says.
    """

    def check() -> tuple[str, Verdict]:
        store = open_store(uri, allow_symlinks=allow_symlinks)
        return str(store.uri), _verdict(store, program)

    return retried_if_changed(check)


def _verdict(store: Store, program: Program) -> Verdict:
    where, config = str(store.uri), read_json(store, CONFIG_FILE)
    if is_medusa(config):
        return _medusa(store, program, config)
    tensors, weights = read_tensors(store), weights_name(store)
    family = family_of(config)
    if family is None:
        raise _headless(store, program, config, tensors)
    heads = native_heads(family, config, tensors, weights)
    if not (heads.found.blocks or heads.found.strays):
        raise _headless(store, program, config, tensors)
    refuse(where, program, native_obstacles(program, heads))
    return native_verdict(program, heads, where)


def _medusa(store: Store, program: Program, config: Mapping[str, Any]) -> Verdict:
    where = str(store.uri)
    if not program.has_medusa:
        refuse(where, program, [no_medusa(program)])
    if reference := reference_obstacle(config):
        refuse(where, program, [reference])
    refuse(where, program, medusa_obstacles(config, read_tensors(store), weights_name(store)))
    return medusa_verdict(config, where)


def _headless(
    store: Store, program: Program, config: Mapping[str, Any], tensors: Sequence[TensorInfo]
) -> CheckpointError:
    """Return the error that says why a checkpoint without heads of a known family has none to draft with."""
    where, model_type = str(store.uri), show(config.get("model_type"))
    if own_class := _own_class(store):
        problem = f"{where}/{METADATA_FILE}: loading_strategy.model_class_name is {show(own_class)}"
        hint = f"write what other programs read first, and ask about that: wmtp export {where} NEW{_target(store)}"
        return CheckpointError(f"{problem}, a class that {program.label} does not have", hint)
    if names := head_like(tensor.name for tensor in tensors):
        problem = f"{where}/{CONFIG_FILE}: model_type is {model_type}, a family whose heads are not known here"
        hint = f"ask the documentation of {program.label}, or serve it plainly"
        return CheckpointError(f"{problem}; the tensors hold {', '.join(show_all(names)[:3])}", hint)
    family = family_of(config)
    counts = declared_counts(family, config) if family else {}
    if any(counts.values()):
        path, found = next(iter(counts.items()))
        problem = f"{where}/{CONFIG_FILE}: {path} is {show(found)}, and no tensor of a module is there"
        hint = "take the modules from the original checkpoint: transformers leaves them out when it saves"
        return CheckpointError(f"{problem}: {program.label} refuses to draft, or drafts garbage", hint)
    zero = f"; {next(iter(counts))} is 0, and asked to draft it {program.on_zero}" if counts else ""
    problem = f"{where}: no prediction heads: {program.label} would serve it plainly and cannot draft{zero}"
    return CheckpointError(problem, f"leave speculative decoding off, {_heads_for(program, where)}")


def _heads_for(program: Program, where: str) -> str:
    """Return how a plain model comes to heads that a program drafts with."""
    if program.has_medusa:
        return (
            f"or make and train Medusa heads: wmtp grow {where} NEW --heads 4 --head-type resblock; heads that were"
            f" exported for this trunk are asked about by themselves: wmtp validate HEADS --for {program.name}"
        )
    return f"as {program.label} has no Medusa heads; docs/serving.md says which native ones it drafts with"


def _target(store: Store) -> str:
    """Return the option of `wmtp export` by which servers get the declared heads; none where no server reads them."""
    mtp = read_metadata(store).mtp
    return _TARGETS.get(mtp.head_type or "", "") if mtp is not None else ""


def _own_class(store: Store) -> str | None:
    """Return the class that a metadata.json declares, where it is none of transformers'."""
    return read_metadata(store).loading_strategy.model_class_name if store.has(METADATA_FILE) else None
