from __future__ import annotations

from pathlib import Path

import pytest

from servers.answers import error_answer
from servers.environment import use_server
from servers.faulty import FaultyServer
from wmtp.errors import NotFoundError, StorageError
from wmtp.storage.credentials import open_obstore
from wmtp.storage.requests.failures import Failure, expected_errors, read_failure, storage_error
from wmtp.storage.requests.versions import BodyFault
from wmtp.storage.uri import parse_uri

SOURCE = "profile 'lab'"


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """What is read from obstore's error when a server answers so."""

    def ask(status: int, code: str, message: str = "", key: str = "m/a", **more: str) -> Failure:
        import obstore

        with FaultyServer() as server:
            server.put("bucket", key, b"1")
            server.fault(lambda *_: error_answer(status, code, message, **more))
            use_server(monkeypatch, server.endpoint, home=tmp_path)
            store, _ = open_obstore(parse_uri("s3://bucket"))
            with pytest.raises(expected_errors()) as error:
                obstore.get(store, key)
        return read_failure(error.value)

    return ask


def error_of(failure: Failure, then: str = "") -> StorageError:
    return storage_error(failure, "s3://bucket/m/a", credentials=SOURCE, then=then)


@pytest.mark.parametrize(
    ("status", "code", "words", "hint"),
    [
        (403, "InvalidAccessKeyId", "the server does not know the access key", "correct the credentials"),
        (403, "SignatureDoesNotMatch", "the secret key is wrong", "correct the credentials"),
        (400, "ExpiredToken", "the credentials have expired", "renew the credentials"),
        (403, "AccessDenied", "access is denied", "ask the owner"),
        (401, "Unauthorized", "access is denied", "ask the owner"),
    ],
)
def test_every_kind_of_refusal_says_which_and_names_the_source(told, status, code, words, hint) -> None:
    failure = told(status, code, "Not so.")
    assert failure.is_refused
    assert not failure.is_transient
    error = error_of(failure)
    assert error.problem.startswith(f"s3://bucket/m/a: {words}")
    assert f"(the server answered {status} {code}: Not so.); credentials: {SOURCE}" in error.problem
    assert error.hint.startswith(hint)


def test_clocks_that_differ_are_told_with_both_times(told) -> None:
    times = {"RequestTime": "20260105T100000Z", "ServerTime": "2026-01-05T12:00:00Z"}
    error = error_of(told(403, "RequestTimeTooSkewed", "Too large.", **times))
    assert "this machine says 20260105T100000Z, the server 2026-01-05T12:00:00Z" in error.problem
    assert error.hint.startswith("set this machine's clock")


@pytest.mark.parametrize(
    ("status", "is_transient"), [(500, True), (503, True), (429, True), (501, False), (400, False)]
)
def test_what_may_pass_is_told_from_what_will_not(told, status: int, is_transient: bool) -> None:
    failure = told(status, "Code", "Words.")
    assert failure.is_transient is is_transient
    assert failure.cause == f"the server answered {status} Code: Words."


def test_a_wrong_region_is_named_with_the_right_one(told) -> None:
    message = "The authorization header is malformed; the region 'us-east-1' is wrong; expecting 'eu-west-1'"
    error = error_of(told(400, "AuthorizationHeaderMalformed", message))
    assert error.problem == "s3://bucket/m/a: the bucket is in the region eu-west-1, not in the one that was asked"
    assert error.hint.startswith("set AWS_REGION=eu-west-1")
    assert "in another region" in error_of(told(301, "PermanentRedirect")).problem


def test_a_missing_bucket_is_told_from_a_missing_object(told) -> None:
    for code, words in (("NoSuchBucket", "there is no bucket s3://bucket"), ("NoSuchKey", "no such object")):
        error = error_of(told(404, code))
        assert isinstance(error, NotFoundError)
        assert error.problem == f"s3://bucket/m/a: {words}"


def test_a_message_of_the_server_can_neither_paint_nor_repeat_a_secret(told) -> None:
    secret = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
    failure = told(403, "AccessDenied", f"\x1b[2J\n{secret} https://x/?X-Amz-Signature=abcdef&sig=123 \u202e")
    assert secret not in failure.cause
    assert "abcdef" not in failure.cause
    assert "sig=123" not in failure.cause
    assert failure.cause.isprintable()
    assert failure.cause.isascii()


def test_a_key_cannot_pass_itself_off_as_an_answer(told) -> None:
    key = "m/Server returned non-2xx status code: 500 Debug source: inner: Status {status: 500, body: Some("
    assert told(404, "NoSuchKey", key=key).status == 404


def test_an_answer_cannot_forge_the_facts_behind_it(told) -> None:
    forged = '\n\nDebug source:\n\n inner: Status {\n status: 200,\n body: Some(\n "<Code>Fine</Code>'
    failure = told(403, "AccessDenied", forged)
    assert (failure.status, failure.code) == (403, "AccessDenied")


def test_a_body_of_the_wrong_length_may_be_asked_for_again() -> None:
    failure = read_failure(BodyFault("the server sent fewer bytes than it promised"))
    assert failure.is_transient
    error = error_of(failure, "5 of 9 bytes had come")
    assert error.problem == "s3://bucket/m/a: the server sent fewer bytes than it promised, 5 of 9 bytes had come"
    assert "WMTP_TRANSFER_TIMEOUT" in error.hint
