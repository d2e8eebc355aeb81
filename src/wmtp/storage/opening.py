"""From an address to the store that reads what stands there."""

from __future__ import annotations

from pathlib import Path

from wmtp.storage.store import Store
from wmtp.storage.uri import ModelURI, parse_uri


def open_store(
    uri: str | Path | ModelURI,
    *,
    allow_symlinks: bool = False,
    cache: bool = True,
    cache_dir: str | Path | None = None,
) -> Store:
    """Open the files below an address.

    Args:
        uri: The address.
        allow_symlinks: Follow links that leave a local directory.
        cache: Keep files that are fetched whole on this machine. False: they are only ever read into memory.
        cache_dir: Where; None: `$WMTP_CACHE`, or `wmtp` in the user's cache directory.

    Raises:
        URIError: If the text is no address.
        NotFoundError: If nothing stands there. What is not on this machine is asked for when it is first read.
    """
    # A local directory is opened at once only because nothing is imported for the others.
    parsed = parse_uri(uri)
    if parsed.scheme == "file":
        from wmtp.storage.local import LocalStore

        return LocalStore(parsed, allow_symlinks=allow_symlinks)
    if parsed.scheme == "hf":
        from wmtp.storage.hub import open_hub

        return open_hub(parsed, cache=cache)
    from wmtp.storage.cache import VerifiedCache
    from wmtp.storage.objects import ObjectStore

    return ObjectStore(parsed, cache=VerifiedCache(Path(cache_dir) if cache_dir else None) if cache else None)
