"""Refused requests: which refusal, whose credentials, soon, and never what they are."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

import wmtp
from faults.site import BUCKET, KEY_ID, METADATA, SECRET, TOKEN, WEIGHTS, Site
from servers.faults import denied, redirected, signed_for_another_region, spoken, wrong_region
from servers.faulty import Fault, FaultyServer
from wmtp.errors import NotFoundError, StorageError
from wmtp.storage.opening import open_store

KINDS = {
    "SignatureDoesNotMatch": "secret",
    "InvalidAccessKeyId": "key",
    "ExpiredToken": "expired",
    "AccessDenied": "denied|not allowed|may not",
}
# Of one request and one second look at why it was refused, each with a HEAD and a retry at most.
FEW = 6


@pytest.mark.parametrize("kind", KINDS)
def test_a_refusal_is_named_at_once_with_where_the_credentials_are_from(site: Site, kind: str):
    site.server.fault(denied(kind), method="*")
    site.refuses(lambda: wmtp.load_metadata(site.uri), StorageError, f"(?i){KINDS[kind]}", "(?i)environment")


@pytest.mark.parametrize("kind", KINDS)
def test_a_refused_request_is_not_tried_again_for_long(site: Site, monkeypatch: pytest.MonkeyPatch, kind: str):
    monkeypatch.setenv("WMTP_TRANSFER_TIMEOUT", "120")
    site.server.fault(denied(kind), method="*")
    for act in (lambda: wmtp.load_metadata(site.uri), lambda: open_store(site.uri).list_files()):
        site.server.requests.clear()
        with pytest.raises(StorageError, match=r"(?i)environment"):
            act()
        assert 1 <= len(site.server.requests) <= FEW


def test_a_token_that_expires_in_the_middle_of_a_load_says_so(large_site: Site):
    large_site.server.fault(denied("ExpiredToken"), key=f"model/{WEIGHTS}", skip=1)
    large_site.refuses(lambda: large_site.load(cache=False), StorageError, f"s3://{BUCKET}/model/", "(?i)expired")


def test_a_clock_that_is_wrong_is_named_with_both_times(site: Site):
    site.server.clock_skew = timedelta(hours=2)
    times = "\\d{4}-?\\d\\d-?\\d\\dT?.*\\d{4}-?\\d\\d-?\\d\\dT?"
    site.refuses(lambda: wmtp.load_metadata(site.uri), StorageError, "(?i)clock", times)
    site.server.clock_skew = timedelta(hours=-2)
    site.refuses(lambda: open_store(site.uri).list_files(), StorageError, "(?i)clock", times)


@pytest.mark.parametrize("fault", [wrong_region, signed_for_another_region])
def test_a_bucket_in_another_region_is_named_with_the_region(site: Site, fault: Callable[[str], Fault]):
    site.server.fault(fault("eu-central-1"), method="*")
    site.refuses(lambda: open_store(site.uri).list_files(), StorageError, "region eu-central-1", "AWS_REGION")


@pytest.mark.parametrize("kind", ["SignatureDoesNotMatch", "ExpiredToken"])
def test_credentials_of_a_profile_are_named_by_the_profile(
    site: Site, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kind: str
):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name)
    values = f"aws_access_key_id={KEY_ID}\naws_secret_access_key={SECRET}\naws_session_token={TOKEN}\n"
    (tmp_path / "credentials").write_text(f"[lab]\n{values}")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_PROFILE", "lab")
    site.server.fault(denied(kind), method="*")
    site.refuses(lambda: wmtp.load_metadata(site.uri), StorageError, "lab", f"(?i){KINDS[kind]}")
    assert all("lab" not in str(request.headers) for request in site.server.requests)


def test_without_credentials_requests_are_unsigned_and_a_refusal_says_so(site: Site, monkeypatch: pytest.MonkeyPatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name)
    site.survives(site.load)
    assert all("authorization" not in request.headers for request in site.server.requests)
    site.server.fault(denied("AccessDenied"), method="*")
    site.refuses(lambda: wmtp.load_metadata(site.uri), StorageError, "credentials: none found", "unsigned", METADATA)


@pytest.mark.parametrize("message", ["denied: {authorization}", "?X-Amz-Security-Token={token}&x=1", "token {token}"])
def test_a_server_that_repeats_credentials_in_its_message_is_not_quoted(site: Site, message: str):
    site.server.fault(spoken(403, message), method="*", key="model*")
    site.refuses(lambda: wmtp.load_metadata(site.uri), StorageError, "AccessDenied")


@pytest.mark.parametrize("code", [400, 403, 404, 500, 503])
def test_what_a_server_says_is_shown_so_that_no_terminal_obeys_it(site: Site, code: int):
    site.server.fault(spoken(code, "\x1b[2J\r\nhint: all is well\n" + "long " * 20_000), method="*", key="model*")
    site.refuses(lambda: wmtp.load_metadata(site.uri), (StorageError, NotFoundError))
    assert "\x1b" not in site.output()


def test_a_redirect_takes_neither_key_nor_signature_to_another_server(site: Site):
    with FaultyServer() as other:
        other.put(BUCKET, f"model/{METADATA}", site.files[METADATA])
        site.server.fault(redirected(other.endpoint), method="*", key="model*")
        site.survives_or_refuses(lambda: wmtp.load_metadata(site.uri), StorageError)
        for request in other.requests:
            assert "authorization" not in request.headers
            assert not any(secret in str(request.headers) for secret in (KEY_ID, SECRET))
