"""Bytes that are not what they should be: counted, hashed where a digest is known, fetched once more, then refused."""

from __future__ import annotations

from collections.abc import Callable

import pytest

import wmtp
from faults.site import BUCKET, CONFIG, METADATA, WEIGHTS, Site, sha256
from servers.faults import bit_flipped, page_of_html, shifted, truncated, whole_object, without_etag
from servers.faulty import Fault, FaultyServer
from servers.listings import listing_sizes
from wmtp.errors import ArrivalError, ChangedError, FormatError, IntegrityError, MetadataError, PlanError, StorageError
from wmtp.storage.opening import open_store

KEY = f"model/{WEIGHTS}"


@pytest.fixture
def declared(site: Site) -> Site:
    """A checkpoint whose metadata.json has the digests of its files."""
    site.declare_digests()
    return site


@pytest.mark.parametrize("cache", [True, False])
def test_a_bit_flipped_once_is_fetched_again(declared: Site, cache: bool):
    declared.server.fault(bit_flipped(80_000, times=1), key=KEY)
    declared.survives(lambda: declared.load(cache=cache))
    ranges = [request.range for request in declared.server.asked("GET", KEY)]
    assert ranges.count(ranges[-1]) >= 2


@pytest.mark.parametrize("cache", [True, False])
def test_a_bit_that_is_always_flipped_is_refused_with_both_digests(declared: Site, cache: bool):
    data = bytearray(declared.files[WEIGHTS])
    data[80_000] ^= 1
    declared.server.fault(bit_flipped(80_000), key=KEY)
    told = (f"s3://{BUCKET}/{KEY}", f"sha256:{sha256(bytes(data))}", f"sha256:{sha256(declared.files[WEIGHTS])}")
    declared.refuses(lambda: declared.load(cache=cache), IntegrityError if cache else ArrivalError, *told)
    assert len(declared.server.requests) < 30


def test_a_small_file_with_a_flipped_bit_is_refused(declared: Site):
    position = declared.files[CONFIG].index(b'"rms_norm_eps": 1e-0') + 20
    declared.server.fault(bit_flipped(position), key=f"model/{CONFIG}")
    told = (f"s3://{BUCKET}/model/{CONFIG}", sha256(declared.files[CONFIG]))
    declared.refuses(declared.load, ArrivalError, *told)
    declared.server.fault(bit_flipped(position, times=1), key=f"model/{CONFIG}")
    declared.survives(lambda: declared.load(cache=False))


def test_a_header_that_was_shown_otherwise_than_it_arrives_is_refused(site: Site):
    """Without any digest: what the plan was made from must be what is loaded."""
    position = site.files[WEIGHTS].index(b'"shape":[48,32]') + 9
    site.server.fault(bit_flipped(position, times=1), key=KEY)
    site.survives_or_refuses(site.load, (ArrivalError, FormatError, IntegrityError, PlanError), f"s3://{BUCKET}/model")


def test_a_lock_holds_what_comes_from_a_bucket(site: Site):
    lock = {name: f"sha256:{sha256(data)}" for name, data in site.files.items()}
    site.server.fault(bit_flipped(80_000), key=KEY)
    site.refuses(lambda: site.load(lock=lock), IntegrityError, WEIGHTS, lock[WEIGHTS].removeprefix("sha256:"))


@pytest.mark.parametrize("change", [-1, 1])
def test_sizes_that_a_listing_gets_wrong_are_noticed(site: Site, change: int):
    site.server.fault(listing_sizes(site.server, change), method="LIST")
    errors = (ChangedError, IntegrityError, StorageError)
    site.refuses(lambda: site.fetch(WEIGHTS), errors, f"s3://{BUCKET}/{KEY}", "bytes")


def test_a_body_that_always_ends_early_is_put_together(large_site: Site):
    large_site.server.fault(truncated(after=700_000), key=KEY)
    large_site.survives(lambda: large_site.fetch(WEIGHTS))
    assert len(large_site.server.asked("GET", KEY)) >= len(large_site.files[WEIGHTS]) / 700_000


def another_range(server: FaultyServer) -> Fault:
    return shifted(16)


@pytest.mark.parametrize("fault", [another_range, whole_object])
def test_an_answer_for_another_range_is_not_used(large_site: Site, fault: Callable[[FaultyServer], Fault]):
    large_site.server.fault(fault(large_site.server), key=KEY, skip=1)
    large_site.survives_or_refuses(large_site.fetch, StorageError, f"s3://{BUCKET}/{KEY}")


def test_the_page_of_a_proxy_is_not_used(site: Site):
    site.server.fault(page_of_html(), key=KEY)
    site.refuses(lambda: site.fetch(WEIGHTS), (ChangedError, StorageError), f"s3://{BUCKET}/{KEY}")
    site.server.fault(page_of_html(), key=f"model/{METADATA}")
    site.server.fault(page_of_html(), method="HEAD", key=f"model/{METADATA}")
    site.refuses(lambda: wmtp.load_metadata(site.uri), (MetadataError, StorageError), f"s3://{BUCKET}/model/{METADATA}")


def test_a_server_without_etags_serves_models_all_the_same(site: Site):
    for method in ("GET", "HEAD", "LIST"):
        site.server.fault(without_etag(), method=method)
    site.survives(site.load)
    site.survives(lambda: site.load(cache=False))


def test_a_small_file_that_is_too_large_is_refused_before_it_is_read(site: Site):
    site.server.put(BUCKET, f"model/{METADATA}", bytes(50_000_000))
    again = lambda: site.store_files(site.files)  # noqa: E731
    site.refuses(lambda: wmtp.load_metadata(site.uri), StorageError, METADATA, "50,000,000 bytes", recovers=again)
    site.server.put(BUCKET, f"model/{METADATA}", bytes(50_000_000))
    with pytest.raises(StorageError, match="50,000,000 bytes"):
        site.load()
    assert sum(request.sent_bytes for request in site.server.requests) < 20_000_000


@pytest.mark.parametrize("name", [CONFIG, WEIGHTS])
def test_a_file_that_was_damaged_before_its_digest_was_known_is_fetched_again(site: Site, name: str):
    data = bytearray(site.files[name])
    position = site.files[CONFIG].index(b"1e-06") + 4 if name == CONFIG else 80_000
    data[position] ^= 1
    site.honest.add(sha256(bytes(data)))
    site.server.fault(bit_flipped(position, times=1), key=f"model/{name}")
    assert open_store(site.uri).local_paths([name])[name].read_bytes() == data
    site.server.heal()
    site.declare_digests()
    site.survives(site.load)
    assert site.load().model.config.rms_norm_eps == 1e-6


def test_a_file_that_was_damaged_before_it_was_locked_is_fetched_again(site: Site):
    data = bytearray(site.files[WEIGHTS])
    data[80_000] ^= 1
    site.honest.add(sha256(bytes(data)))
    site.server.fault(bit_flipped(80_000, times=1), key=KEY)
    open_store(site.uri).local_paths([WEIGHTS])
    lock = {name: f"sha256:{sha256(content)}" for name, content in site.files.items()}
    site.survives(lambda: site.load(lock=lock))
