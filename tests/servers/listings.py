"""Listings of a hostile or broken server: each function returns a fault for `FaultyServer.fault(method="LIST")`."""

from __future__ import annotations

from collections.abc import Iterable

from servers.answers import PAGE, Answer, Request, listing_page
from servers.faulty import Fault, FaultyServer

# What a bucket's owner may call an object below `model`, by what is wrong with it as a path.
HOSTILE_KEYS = {
    "a part ..": "model/../../outside.json",
    "an empty part": "model//outside.json",
    "an absolute name": "model//etc/outside.json",
    "a backslash": "model/..\\outside.json",
    "a control character": "model/out\x07side.json",
    "an escape of the terminal": "model/\x1b[2J\x1b]0;outside\x07.json",
    "a percent escape": "model/%2e%2e%2foutside.json",
    "300 bytes": f"model/{'o' * 300}.json",
    "a line break": "model/outside\nwmtp: all is well",
    "text that runs backwards": "model/\u202enosj.edistuo",
    "a drive": "model/C:/outside.json",
}

_ETAG = '"d41d8cd98f00b204e9800998ecf8427e"'


def listing_also(server: FaultyServer, keys: Iterable[str]) -> Fault:
    """The listing has further keys, as they are given, whatever the prefix."""

    def fault(request: Request, answer: Answer) -> Answer:
        held = server.objects(request.bucket)
        found = [(key, len(data), server.etag(request.bucket, key)) for key, data in held.items()]
        below = [item for item in found if item[0].startswith(request.key)]
        return listing_page(request, [*below, *((key, 3, _ETAG) for key in keys)], "")

    return fault


def listing_sizes(server: FaultyServer, change: int) -> Fault:
    """Every size in the listing is wrong by so many bytes."""

    def fault(request: Request, answer: Answer) -> Answer:
        held = server.objects(request.bucket)
        below = [key for key in held if key.startswith(request.key)]
        page = [(key, len(held[key]) + change, server.etag(request.bucket, key)) for key in below]
        return listing_page(request, page, "")

    return fault


def listing_repeats(prefix: str) -> Fault:
    """The same page with the same token, for ever."""
    return lambda request, _: listing_page(request, [(f"{prefix}/a", 3, _ETAG)], "same")


def listing_never_begins() -> Fault:
    """Empty pages for ever, each with a new token."""

    def fault(request: Request, answer: Answer) -> Answer:
        return listing_page(request, [], f"page-{_page_number(request) + 1}")

    return fault


def listing_of(count: int, prefix: str) -> Fault:
    """A listing of so many keys, page by page."""

    def fault(request: Request, answer: Answer) -> Answer:
        number = _page_number(request)
        span = range(number * PAGE, min(count, (number + 1) * PAGE))
        page = [(f"{prefix}/{index:09}", 3, _ETAG) for index in span]
        return listing_page(request, page, f"page-{number + 1}" if span.stop < count else "")

    return fault


def listing_of_text(text: str) -> Fault:
    """Some text in place of the listing's XML."""
    return lambda *_: Answer(200, {"Content-Type": "application/xml"}, text.encode())


def _page_number(request: Request) -> int:
    return int(request.query.get("continuation-token", "page-0").removeprefix("page-"))
