"""Listing a bucket with an end to it, whatever the server says."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import suppress
from typing import Any, TypeVar

from wmtp.errors import NotFoundError, StorageError
from wmtp.storage.requests.retries import transfer_timeout
from wmtp.storage.requests.versions import ObjectInfo, info_of

_T = TypeVar("_T")
_PAGE = 1000


def list_objects(store: Any, prefix: str, *, max_objects: int, where: str) -> list[ObjectInfo]:
    """Return what obstore lists below `prefix/`, markers of directories among it.

    Raises:
        StorageError: If there are more than `max_objects`.
        TimeoutError: If the listing has no end within `transfer_timeout()` seconds.
    """
    found = _run(_collect(store, prefix, max_objects, where))
    # A server may send other keys than were asked for; and obstore drops the slash at the end of a marker.
    return [info for info in found if not prefix or info.key.startswith(f"{prefix}/")]


def without_markers(found: Sequence[ObjectInfo], head: Callable[[str], ObjectInfo]) -> Iterator[ObjectInfo]:
    """Leave out the objects that stand for directories.

    `logs/`, which some tools write for a directory, comes from obstore as an empty `logs`. If something stands below
    it, it is one; otherwise only the server knows, and is asked.
    """
    times = Counter(info.key for info in found)
    unclear = {info.key for info in found if not info.size_bytes or times[info.key] > 1}
    yield from (info for info in found if info.key not in unclear)
    if unclear:
        directories = {info.key[:at] for info in found for at, letter in enumerate(info.key) if letter == "/"}
        for key in sorted(unclear - directories):
            with suppress(NotFoundError):
                yield head(key)


async def _collect(store: Any, prefix: str, max_objects: int, where: str) -> list[ObjectInfo]:
    import asyncio

    import obstore

    found: list[ObjectInfo] = []
    # obstore asks for page after page and does not come back while they are empty: only from outside can it be ended.
    async with asyncio.timeout(transfer_timeout()):
        async for page in obstore.list(store, prefix=prefix or None, chunk_size=_PAGE):
            found += map(info_of, page)
            if len(found) > max_objects:
                raise StorageError(f"{where}: more than {max_objects:,} objects", hint="name a longer prefix")
    return found


def _run(work: Coroutine[Any, Any, _T]) -> _T:
    import asyncio
    from concurrent.futures import ThreadPoolExecutor

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    with ThreadPoolExecutor(1) as pool:  # in a notebook a loop runs already
        return pool.submit(asyncio.run, work).result()
