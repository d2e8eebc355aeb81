"""Reading and writing metadata.json."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from typing_extensions import Unpack

from wmtp.errors import MetadataError, NotFoundError
from wmtp.faults import faults_error, model_faults
from wmtp.metadata.absent import absent_hint
from wmtp.metadata.schema import STORAGE_VERSION, ModelMetadata
from wmtp.storage.opening import open_store
from wmtp.storage.replace import replace_file
from wmtp.storage.store import Access, Store
from wmtp.storage.uri import ModelURI
from wmtp.untrusted import MAX_JSON_BYTES, parse_json_object, show

METADATA_FILE = "metadata.json"


def load_metadata(uri: str | Path | ModelURI, **access: Unpack[Access]) -> ModelMetadata:
    """Read and check the metadata.json of the checkpoint at an address, and nothing else of it.

    Args:
        uri: Its address.
        **access: How its files are got at: see `wmtp.storage.opening.open_store`.

    Raises:
        NotFoundError: If there is no such directory or no metadata.json in it.
        MetadataError: If the file is malformed; names every fault at once.
    """
    return read_metadata(open_store(uri, **access))


def read_metadata(store: Store) -> ModelMetadata:
    """Read and check the metadata.json of an open store; raises what `load_metadata` raises."""
    where = f"{store.uri / METADATA_FILE}"
    try:
        data = store.read_bytes(METADATA_FILE, max_bytes=MAX_JSON_BYTES)
    except NotFoundError as error:
        if store.directory is None:
            raise
        raise NotFoundError(f"{where}: no such file", hint=absent_hint(store)) from error
    return parse_metadata(data, where=where)


def parse_metadata(data: bytes, *, where: str) -> ModelMetadata:
    """Parse the bytes of a metadata.json.

    Args:
        data: The whole file.
        where: How errors name it.

    Raises:
        MetadataError: With every fault, each with its path in the document.
    """
    document = parse_json_object(data, where=where, error=MetadataError)
    version = document.get("storage_version")
    if version != STORAGE_VERSION:
        found = "missing" if version is None else show(version)
        raise MetadataError(
            f"{where}: storage_version is {found}, this version of wmtp reads '{STORAGE_VERSION}'",
            hint="bring an older file up to date with 'wmtp upgrade DIR'",
        )
    try:
        # From the text, not the parsed dict: pydantic's strict mode is meant for JSON as written.
        return ModelMetadata.model_validate_json(data)
    except ValidationError as error:
        raise faults_error(
            model_faults(error, ModelMetadata),
            where=where,
            error=MetadataError,
            hint="mend the file; 'wmtp schema metadata' prints what each field may be",
        ) from error


def dump_metadata(metadata: ModelMetadata) -> str:
    """Return the text of a metadata.json: fields in the order of the format, absent ones and empty rules left out."""
    document = metadata.model_dump(mode="json", by_alias=True, exclude_none=True)
    document["loading_strategy"] = metadata.loading_strategy.model_dump(mode="json", exclude_defaults=True)
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def write_metadata(directory: Path, metadata: ModelMetadata | Mapping[str, Any]) -> Path:
    """Write metadata.json into a directory, checked first and published by rename.

    Raises:
        MetadataError: If what would be written cannot be read back as metadata; nothing is written then.
        StorageError: If the directory cannot be written.
    """
    path = directory / METADATA_FILE
    if not isinstance(metadata, ModelMetadata):
        metadata = parse_metadata(json.dumps(metadata).encode(), where=str(path))
    # An object made in Python can hold what the format forbids (a NaN in `extra`): the bytes are what counts.
    data = dump_metadata(metadata).encode(errors="surrogatepass")
    parse_metadata(data, where=str(path))
    replace_file(path, data)
    return path


def metadata_json_schema() -> dict[str, Any]:
    """Return the JSON Schema of metadata.json, for editors and other tools."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **ModelMetadata.model_json_schema(by_alias=True)}
