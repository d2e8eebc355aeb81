"""A checkpoint as its small files and headers describe it: everything that can be known before a model is built."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from typing_extensions import Unpack

from wmtp.checkpoint.configuration import CONFIG_FILE, GENERATION_FILE, check_declaration, read_config
from wmtp.checkpoint.contradictions import impossible_values
from wmtp.checkpoint.headers import read_tensors_and_notes
from wmtp.checkpoint.native_heads import check_native_heads
from wmtp.checkpoint.quantisation import check_rules, without_quantisation
from wmtp.checkpoint.sizes import check_sizes
from wmtp.checkpoint.tensors import TensorInfo
from wmtp.checkpoint.tokenizer import tokenizer_files
from wmtp.errors import CheckpointError, IncompatibleModelError, NotFoundError, StorageError
from wmtp.manifest import MANIFEST_FILE, Manifest
from wmtp.metadata.file import METADATA_FILE, read_metadata
from wmtp.metadata.schema import ModelMetadata
from wmtp.storage.locked import Lock, lock_store
from wmtp.storage.opening import open_store
from wmtp.storage.store import Access, Store
from wmtp.storage.uri import ModelURI
from wmtp.trust.guards import construction_errors
from wmtp.untrusted import MAX_INDEX_BYTES, did_you_mean, show, show_all

# What says how pictures, videos and sounds reach the model, and how a chat with them is written.
PROCESSOR_FILES = (
    "preprocessor_config.json",
    "processor_config.json",
    "video_preprocessor_config.json",
    "audio_tokenizer_config.json",
    "chat_template.json",
)


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint whose metadata, configuration and headers were read and agree with each other.

    Attributes:
        store: Where its files are.
        metadata: Its declaration.
        config: config.json as plain values.
        tensors: What its headers declare.
        notes: Faults of its files that do no harm, and that a reader should know of.
    """

    store: Store
    metadata: ModelMetadata
    config: dict[str, Any]
    tensors: list[TensorInfo]
    notes: tuple[str, ...] = ()

    @property
    def where(self) -> str:
        """The address, as errors show it."""
        return str(self.store.uri)

    @property
    def plain_config(self) -> dict[str, Any]:
        """config.json without the kind of quantisation that the mapping undoes: for a class with plain weights."""
        return without_quantisation(self.config)

    @contextmanager
    def construction_errors(self, where: str) -> Iterator[None]:
        """Turn what a library raises while it builds the model into a CheckpointError that names the key at fault.

        Args:
            where: The file that the model is built from.
        """
        try:
            with construction_errors(where):
                yield
        except CheckpointError as error:
            if type(error) is not CheckpointError or not (faults := impossible_values(self.config, self.tensors)):
                raise  # more than the tensors can fill, or nothing that is known here
            said = error.problem.removeprefix(f"{where}: ")
            raise CheckpointError(
                f"{self.where}/{CONFIG_FILE}: {faults[0]}", hint=error.hint, faults=[*faults[1:], said]
            ) from error


def open_checkpoint(
    uri: str | Path | ModelURI,
    *,
    algorithm: str | None = None,
    lock: Lock | None = None,
    **access: Unpack[Access],
) -> Checkpoint:
    """Read everything about a checkpoint but its weights.

    Args:
        uri: Its address.
        algorithm: Refuse a model that does not declare itself fit for this algorithm.
        lock: Digests that its files must have: see `lock_store`.
        **access: How its files are got at: see `open_store`.

    Raises:
        WmtpError: For the first of these that fails: lock, metadata, algorithm, required files, configuration, headers.
    """
    store = open_store(uri, **access)
    if lock is not None:
        store = lock_store(store, lock)
    metadata = read_metadata(store)
    if algorithm is not None and algorithm not in metadata.algorithm_compatibility:
        fitting = ", ".join(metadata.algorithm_compatibility) or "none"
        raise IncompatibleModelError(
            f"{store.uri / METADATA_FILE}: algorithm_compatibility lacks {show(algorithm)}, it has: {fitting}",
            hint="add it there if the model may serve it" + did_you_mean(algorithm, metadata.algorithm_compatibility),
        )
    check_required_files(store, metadata)
    if store.directory is None:  # what lies on this machine is hashed by locks, and by `wmtp validate --deep`
        store.expect(declared_digests(store, metadata))
    config = read_config(store)
    check_declaration(metadata, config, where=str(store.uri))
    check_rules(config, metadata.loading_strategy.state_dict_mapping.tensors, where=str(store.uri))
    tensors, notes = read_tensors_and_notes(store)
    check_native_heads(metadata, config, [tensor.name for tensor in tensors], where=str(store.uri))
    check_sizes(config, tensors, where=str(store.uri))
    return Checkpoint(store, metadata, config, tensors, notes)


def declared_digests(store: Store, metadata: ModelMetadata) -> dict[str, str]:
    """Return the SHA-256 of files by name, as the checkpoint itself declares them.

    They tell whether files arrived as they were written, not whether to trust whoever wrote them.

    Raises:
        IntegrityError: If there is a manifest, and it cannot be read.
    """
    declared = list(metadata.files or [])
    if store.has(MANIFEST_FILE):
        data = store.read_bytes(MANIFEST_FILE, max_bytes=MAX_INDEX_BYTES)
        declared += Manifest.parse(data, where=store.where(MANIFEST_FILE)).files
    # A person may edit metadata.json: what it says is proven by the plan, not by a digest.
    return {entry.path: entry.sha256 for entry in declared if entry.path != METADATA_FILE}


def check_required_files(store: Store, metadata: ModelMetadata) -> None:
    """Raise an error naming every required file that is absent, or is no file of this checkpoint.

    Raises:
        NotFoundError: If some are absent.
        StorageError: If one is a directory, a pipe, or a link that leads outside.
    """
    strategy = metadata.loading_strategy
    start = f"{store.uri / METADATA_FILE}: loading_strategy."
    listed, missing = f"{start}required_files", []
    required = dict.fromkeys(strategy.required_files, listed)
    if strategy.custom_module_file is not None:
        required.setdefault(strategy.custom_module_file, f"{start}custom_module_file")
    for name, field in required.items():
        try:
            if not store.has(name):
                missing.append(name)
        except StorageError as error:
            raise type(error)(f"{field} names {show(name)}: {error.problem}", error.hint, error.faults) from error
    if missing:
        raise NotFoundError(
            f"{listed}: {len(missing)} required files are missing: {', '.join(show_all(missing))}",
            hint="copy them there, or correct loading_strategy.required_files in metadata.json",
        )


def small_files(store: Store) -> list[str]:
    """Return the files beside the weights that loading a model or its tokenizer reads, where they are there."""
    return [*(name for name in (CONFIG_FILE, GENERATION_FILE) if store.has(name)), *tokenizer_files(store)]


def processor_files(store: Store) -> list[str]:
    """Return the files of a processor, which servers read and loading does not, where they are there."""
    return [name for name in PROCESSOR_FILES if store.has(name)]
