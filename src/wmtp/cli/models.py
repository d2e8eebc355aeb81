"""Commands that look at models: ls, inspect, load."""

from __future__ import annotations

from collections import Counter
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Annotated, Any

import typer

from wmtp.cli.inspected import inspected
from wmtp.cli.options import URI, AllowSymlinks, AsJSON, takes_load_options
from wmtp.cli.output import Output, table
from wmtp.settings.loading import LoadKeywords
from wmtp.untrusted import plain
from wmtp.wording import size

if TYPE_CHECKING:
    from wmtp.checkpoint.tensors import TensorInfo
    from wmtp.load_plan.heads import StoredHead
    from wmtp.metadata.schema import ModelMetadata
    from wmtp.storage.store import FileInfo, Store

# Of a bucket, most of the time for a metadata.json is waiting.
_NUM_THREADS = 32


def ls(
    ctx: typer.Context,
    prefix: Annotated[
        str, typer.Argument(metavar="PREFIX", help="A directory or bucket prefix with models somewhere below it.")
    ] = ".",
    as_json: AsJSON = False,
) -> None:
    """List the models below a directory or bucket prefix."""
    from concurrent.futures import ThreadPoolExecutor

    from wmtp.metadata.file import METADATA_FILE
    from wmtp.storage.opening import open_store

    out = Output.of(ctx, as_json=as_json)
    store = open_store(prefix)
    files = store.list_files()
    names = sorted(f.name.removesuffix(METADATA_FILE).rstrip("/") for f in files if _is_metadata(f.name))
    sizes = _sizes(names, files)
    with ThreadPoolExecutor(_NUM_THREADS) as pool:
        models = list(pool.map(lambda name: _listed(store, name, sizes[name]), names))
    good, bad = [m for m in models if "error" not in m], [m for m in models if "error" in m]
    if not models:
        out.say(f"no {METADATA_FILE} below {store.uri}; 'wmtp init DIR' drafts one")
    rows = [(plain(m["name"]), m["wmtp_type"], m["base_architecture"], size(m["size_bytes"]), m["num_heads"] or "?",
             ", ".join(m["algorithms"]) or "none") for m in good]  # fmt: skip
    lines = table(rows, ("NAME", "TYPE", "ARCHITECTURE", "SIZE", "HEADS", "ALGORITHMS"))
    out.result(
        {"prefix": str(store.uri), "models": models}, [*lines, *(f"{plain(m['name'])}: {m['error']}" for m in bad)]
    )


def _is_metadata(name: str) -> bool:
    # A directory with .tmp- in its name is a checkpoint that is being written, or that a kill left behind.
    return (name == "metadata.json" or name.endswith("/metadata.json")) and ".tmp-" not in name


def _sizes(names: list[str], files: list[FileInfo]) -> Counter[str]:
    """Bytes below each of the named directories."""
    wanted, sizes = set(names), Counter[str]()
    for file in files:
        parents = [str(parent) if parent.name else "" for parent in PurePosixPath(file.name).parents]
        sizes.update({parent: file.size_bytes for parent in parents if parent in wanted})
    return sizes


def _listed(store: Store, name: str, size_bytes: int) -> dict[str, Any]:
    from wmtp.errors import WmtpError
    from wmtp.metadata.file import read_metadata

    try:
        metadata = read_metadata(store.child(name) if name else store)
    except WmtpError as error:
        return {"name": name or ".", "error": error.problem}
    return {
        "name": name or ".",
        "wmtp_type": metadata.wmtp_type,
        "base_architecture": metadata.base_architecture,
        "size_bytes": size_bytes,
        "num_heads": metadata.num_heads,
        "algorithms": metadata.algorithm_compatibility,
    }


def inspect(
    ctx: typer.Context,
    uri: URI,
    tensors: Annotated[bool, typer.Option("--tensors", help="List every tensor.")] = False,
    allow_symlinks: AllowSymlinks = False,
    as_json: AsJSON = False,
) -> None:
    """Show a checkpoint's metadata, files, tensors and dtypes; reads no weight."""
    from wmtp.checkpoint.headers import read_tensors
    from wmtp.metadata.file import read_metadata
    from wmtp.storage.opening import open_store
    from wmtp.storage.snapshot import retried_if_changed

    out = Output.of(ctx, as_json=as_json)

    def read() -> tuple[Store, ModelMetadata, list[FileInfo], list[TensorInfo]]:
        store = open_store(uri, allow_symlinks=allow_symlinks)
        return store, read_metadata(store), store.list_files(), read_tensors(store)

    store, metadata, files, found = retried_if_changed(read)
    facts = {
        "uri": str(store.uri),
        "metadata": metadata.model_dump(mode="json", by_alias=True, exclude_none=True),
        "files": [{"name": f.name, "size_bytes": f.size_bytes} for f in files],
        "num_tensors": len(found),
        "num_parameters": sum(t.num_elements for t in found),
        "tensor_bytes": sum(t.num_bytes for t in found),
        "dtypes": _dtypes(found),
    }
    if tensors:
        facts["tensors"] = [{"name": t.name, "dtype": t.dtype, "shape": t.shape, "file": t.file} for t in found]
    heads = _stored_heads(metadata, found, str(store.uri))
    facts["heads"] = [{"head": h.number, "num_tensors": h.num_tensors, "begins": list(h.begins)} for h in heads]
    out.result(facts, inspected(facts, metadata, heads, found if tensors else []))


def _dtypes(tensors: list[TensorInfo]) -> dict[str, dict[str, int]]:
    return {
        dtype: {
            "num_tensors": sum(t.dtype == dtype for t in tensors),
            "num_parameters": sum(t.num_elements for t in tensors if t.dtype == dtype),
        }
        for dtype in sorted({t.dtype for t in tensors})
    }


def _stored_heads(metadata: ModelMetadata, tensors: list[TensorInfo], where: str) -> list[StoredHead]:
    """Return where the files hold heads; nothing where the mapping does not fit them, which is `validate`'s to say."""
    from wmtp.errors import PlanError
    from wmtp.load_plan.heads import stored_heads

    try:
        return stored_heads(metadata.loading_strategy.state_dict_mapping, [t.name for t in tensors], where=where)
    except PlanError:
        return []


@takes_load_options
def load(
    ctx: typer.Context,
    uri: URI,
    *,
    options: LoadKeywords,
    as_json: AsJSON = False,
) -> None:
    """Load a model and show what was loaded."""
    out = Output.of(ctx, as_json=as_json)
    out.start_logging()
    from wmtp.checkpoint.contents import open_checkpoint

    # Most mistakes show before torch is imported.
    open_checkpoint(uri, allow_symlinks=options["allow_symlinks"], cache=options["cache"])
    import wmtp

    receipt = wmtp.load(uri, **options).receipt
    out.result(receipt.to_dict(), receipt.summary())
