"""Objects that change between requests: a checkpoint is read in one version, or refused."""

from __future__ import annotations

import json

import pytest

from faults.site import BUCKET, CONFIG, METADATA, WEIGHTS, Files, Site, check_values
from servers.faults import etag_ignored, precondition_failed, then, truncated
from servers.faulty import Fault
from wmtp.errors import ChangedError, NotFoundError

KEY = f"model/{WEIGHTS}"


def replaces_all(site: Site, files: Files) -> Fault:
    """After the answer, every file of the checkpoint is another."""
    return then(lambda: site.store_files(files))


@pytest.mark.parametrize("cache", [True, False])
@pytest.mark.parametrize(("method", "key"), [("GET", METADATA), ("GET", CONFIG), ("LIST", ""), ("GET", WEIGHTS)])
def test_a_checkpoint_replaced_meanwhile_is_read_again_as_a_whole(
    site: Site, other_files: Files, cache: bool, method: str, key: str
):
    site.server.fault(replaces_all(site, other_files), method=method, key=f"model{'/' if key else '*'}{key}", times=1)
    result = site.survives(lambda: site.load(cache=cache))
    check_values(result, other_files)
    assert (
        result.model.config.rope_parameters["rope_theta"]
        == json.loads(other_files[CONFIG])["rope_parameters"]["rope_theta"]
    )


def test_weights_that_change_with_every_request_are_an_error_with_both_etags(site: Site):
    versions = iter(range(1000))

    def change() -> None:
        site.server.put(BUCKET, KEY, site.files[WEIGHTS], etag=f'"version-{next(versions)}"')

    change()
    site.server.fault(then(change), method="LIST")
    told = (f"s3://{BUCKET}/{KEY}", "version-\\d+.*version-\\d+")
    site.refuses(site.load, ChangedError, *told)
    assert len(site.server.requests) < 60


def test_a_server_that_ignores_if_match_cannot_mix_versions(large_site: Site, large_files: Files):
    site, other = large_site, bytes(len(large_files[WEIGHTS]))
    site.server.fault(truncated(after=5 << 20), key=KEY, times=1)
    site.server.fault(etag_ignored(site.server, other), key=KEY)
    site.refuses(lambda: site.fetch(WEIGHTS), ChangedError, f"s3://{BUCKET}/{KEY}")


def test_an_object_replaced_in_the_middle_of_a_transfer_is_fetched_whole_from_the_new_one(
    large_site: Site, large_files: Files
):
    site = large_site
    site.server.fault(then(lambda: site.server.put(BUCKET, KEY, large_files[WEIGHTS], etag='"new"')), key=KEY, times=1)
    site.survives(site.load)
    assert site.server.asked("GET", KEY)[-1].if_match == '"new"'


def test_a_precondition_that_always_fails_is_no_endless_loop(site: Site):
    site.server.fault(precondition_failed(), key=KEY)
    site.refuses(site.load, ChangedError, f"s3://{BUCKET}/{KEY}")
    assert len(site.server.requests) < 60


def test_a_file_deleted_meanwhile_is_named(site: Site):
    site.server.fault(then(lambda: site.server.delete(BUCKET, KEY)), key=f"model/{CONFIG}", times=1)
    error = site.refuses(site.load, NotFoundError, f"{KEY}|{WEIGHTS}", recovers=lambda: site.store_files(site.files))
    assert "Traceback" not in str(error)
