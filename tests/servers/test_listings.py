"""Hostile listings are as hostile as their names say: seen with a plain HTTP client."""

from __future__ import annotations

import urllib.request
from collections.abc import Iterator

import pytest

from servers.faulty import Fault, FaultyServer
from servers.listings import (
    listing_also,
    listing_never_begins,
    listing_of,
    listing_of_text,
    listing_repeats,
    listing_sizes,
)


@pytest.fixture
def server() -> Iterator[FaultyServer]:
    with FaultyServer() as started:
        started.put("bucket", "model/a", b"abc")
        yield started


def listed(server: FaultyServer, fault: Fault, token: str = "") -> str:
    server.fault(fault, method="LIST", times=1)
    query = f"list-type=2&prefix=model/{'&continuation-token=' if token else ''}{token}"
    with urllib.request.urlopen(f"{server.endpoint}/bucket?{query}") as response:
        return response.read().decode()


def test_a_listing_has_keys_that_no_file_may_have(server: FaultyServer):
    text = listed(server, listing_also(server, ["model/../x", "model//x", "model/\x1b[2J", "model/"]))
    for key in ("model/a", "model/../x", "model//x", "model/&#27;[2J", "model/"):
        assert f"<Key>{key}</Key>" in text


def test_a_listing_lies_about_sizes(server: FaultyServer):
    assert "<Size>4</Size>" in listed(server, listing_sizes(server, +1))


def test_listings_never_end(server: FaultyServer):
    for token in ("", "same"):
        assert "<NextContinuationToken>same<" in listed(server, listing_repeats("model"), token)
    for token, following in (("", "page-1"), ("page-1", "page-2")):
        text = listed(server, listing_never_begins(), token)
        assert ("<Key>" in text, f"<NextContinuationToken>{following}<" in text) == (False, True)


def test_a_listing_has_a_million_keys(server: FaultyServer):
    assert listed(server, listing_of(1_000_000, "model")).count("<Key>") == 1000
    last = listed(server, listing_of(1_000_000, "model"), "page-999")
    assert ("<Key>model/000999999</Key>" in last, "<IsTruncated>false" in last) == (True, True)


def test_a_listing_is_no_listing(server: FaultyServer):
    assert listed(server, listing_of_text("<Contents><Key>")) == "<Contents><Key>"
