from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from servers.environment import use_no_server
from wmtp.errors import SettingsError, StorageError
from wmtp.storage.client import ObjectClient
from wmtp.storage.credentials import open_obstore
from wmtp.storage.uri import parse_uri

BUCKET = parse_uri("s3://bucket/model")
SECRET = "topsecrettopsecrettopsecrettopsecret1234"


@pytest.fixture(autouse=True)
def aws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty ~/.aws, and an environment without a word about stores."""
    use_no_server(monkeypatch, tmp_path)
    return tmp_path


def keys(monkeypatch: pytest.MonkeyPatch, **more: str) -> None:
    for name, value in {"AWS_ACCESS_KEY_ID": "AKIA1", "AWS_SECRET_ACCESS_KEY": SECRET, **more}.items():
        monkeypatch.setenv(name, value)


def profile(aws: Path, name: str = "lab", config: str = "", key: str = "AKIA2") -> None:
    (aws / "credentials").write_text(f"[{name}]\naws_access_key_id = {key}\naws_secret_access_key = {SECRET}\n")
    (aws / "config").write_text(config)


def signs_with(store: Any) -> str:
    import obstore

    return obstore.sign(store, "GET", "k", timedelta(seconds=9)).split("Credential=")[1][:5]


def test_keys_in_the_environment_are_the_source_and_botocore_is_not_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    keys(monkeypatch, AWS_REGION="eu-west-1")
    store, source = open_obstore(BUCKET)
    assert source == "environment variables AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
    assert signs_with(store) == "AKIA1"
    assert (store.config["region"], store.config["endpoint"]) == ("eu-west-1", "https://s3.eu-west-1.amazonaws.com")
    assert store.credential_provider is None


def test_a_profile_gives_credentials_region_and_endpoint(aws: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = "[profile lab]\nregion = eu-central-1\nservices = own\n[services own]\ns3 =\n  endpoint_url = http://minio:9000\n"
    profile(aws, config=config)
    monkeypatch.setenv("AWS_PROFILE", "lab")
    store, source = open_obstore(BUCKET)
    assert source == "profile 'lab' in the credentials file (~/.aws/credentials)"
    assert signs_with(store) == "AKIA2"
    assert (store.config["region"], store.config["endpoint"]) == ("eu-central-1", "http://minio:9000")


def test_the_endpoint_of_the_default_profile_counts_beside_keys_in_the_environment(
    aws: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys(monkeypatch)
    (aws / "config").write_text("[default]\nendpoint_url = https://store.example\nregion = lab-1\n")
    store, source = open_obstore(BUCKET)
    assert source.startswith("environment variables")
    assert (store.config["region"], store.config["endpoint"]) == ("lab-1", "https://store.example")


def test_the_endpoint_of_s3_comes_before_that_of_all_services_and_both_may_be_ignored(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    keys(monkeypatch, AWS_ENDPOINT_URL_S3="http://one:1", AWS_ENDPOINT_URL="http://two:2")
    assert open_obstore(BUCKET)[0].config["endpoint"] == "http://one:1"
    monkeypatch.delenv("AWS_ENDPOINT_URL_S3")
    assert open_obstore(BUCKET)[0].config["endpoint"] == "http://two:2"
    monkeypatch.setenv("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "true")
    assert open_obstore(BUCKET)[0].config["endpoint"] == "https://s3.us-east-1.amazonaws.com"


def test_plain_http_is_spoken_only_where_the_operator_wrote_it(monkeypatch: pytest.MonkeyPatch) -> None:
    keys(monkeypatch, AWS_ENDPOINT_URL="http://one:1")
    assert open_obstore(BUCKET)[0].client_options["allow_http"] in (True, "true")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "https://one:1")
    assert open_obstore(BUCKET)[0].client_options["allow_http"] in (False, "false")


def test_without_credentials_requests_are_unsigned_and_the_places_looked_in_are_named() -> None:
    store, source = open_obstore(BUCKET)
    assert store.config["skip_signature"] in (True, "true")
    assert source.startswith("none found (looked in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE, ~/.aws/")


def test_a_refused_unsigned_request_says_that_no_credentials_were_found(
    s3_bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(StorageError, match=r"access is denied .*credentials: none found") as error:
        ObjectClient(parse_uri(f"s3://{s3_bucket}")).head("m/a")
    assert error.value.hint.startswith("give credentials in one of those places")


def test_a_wrong_secret_and_a_wrong_key_are_told_apart_and_not_shown(
    s3_bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    with pytest.raises(StorageError, match=r"the secret key is wrong.*403 SignatureDoesNotMatch") as error:
        ObjectClient(parse_uri(f"s3://{s3_bucket}")).head("m/a")
    assert "credentials: environment variables" in error.value.problem
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAUNKNOWN")
    with pytest.raises(StorageError, match=r"does not know the access key.*403 InvalidAccessKeyId") as other:
        ObjectClient(parse_uri(f"s3://{s3_bucket}")).list("m", max_objects=1)
    assert SECRET not in f"{error.value!r}{other.value!r}{error.value.__cause__}"


def test_a_profile_that_is_unknown_or_malformed_is_refused_before_any_request(
    aws: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    profile(aws)
    monkeypatch.setenv("AWS_PROFILE", "laboratory")
    with pytest.raises(SettingsError, match=r"AWS configuration cannot be used.*laboratory"):
        open_obstore(BUCKET)
    (aws / "config").write_text("[profile lab\nregion = x\n")
    monkeypatch.setenv("AWS_PROFILE", "lab")
    with pytest.raises(SettingsError, match="AWS configuration cannot be used"):
        open_obstore(BUCKET)


def test_a_login_that_has_expired_is_said_before_any_request(aws: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sso = "sso_start_url = https://x.example\nsso_region = us-east-1\nsso_account_id = 1\nsso_role_name = r\n"
    (aws / "config").write_text(f"[profile lab]\n{sso}")
    monkeypatch.setenv("AWS_PROFILE", "lab")
    monkeypatch.setenv("HOME", str(aws))
    with pytest.raises(StorageError, match="s3://bucket: credentials are configured, but cannot be had") as error:
        open_obstore(BUCKET)
    assert "aws sso login" in error.value.hint


@pytest.mark.parametrize(
    ("endpoint", "problem"),
    [
        ("minio:9000", "which is no address of a server"),
        ("http://", "which is no address of a server"),
        ("http://host:port", "is no address of a server"),
        (f"http://me:{SECRET}@host", "has credentials or a query in it"),
        (f"https://host/?token={SECRET}", "has credentials or a query in it"),
    ],
)
def test_an_endpoint_that_is_no_address_is_refused(
    endpoint: str, problem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys(monkeypatch, AWS_ENDPOINT_URL=endpoint)
    with pytest.raises(SettingsError, match=f"^AWS_ENDPOINT_URL .*{problem}") as error:
        open_obstore(BUCKET)
    assert SECRET not in str(error.value)


def test_a_key_with_a_line_break_is_refused_without_showing_it(monkeypatch: pytest.MonkeyPatch) -> None:
    keys(monkeypatch, AWS_SECRET_ACCESS_KEY=f"{SECRET}\n")
    with pytest.raises(SettingsError, match=r"the secret access key from environment variables .* line break") as error:
        open_obstore(BUCKET)
    assert SECRET not in str(error.value)


def test_a_bundle_of_certificates_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    keys(monkeypatch, AWS_CA_BUNDLE="/nonexistent.pem")
    with pytest.raises(SettingsError, match=r"AWS_CA_BUNDLE names '/nonexistent.pem': No such file"):
        open_obstore(BUCKET)


def test_azure_needs_an_account_and_its_source_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    container = parse_uri("az://container/model")
    with pytest.raises(SettingsError, match="does not say which storage account") as error:
        open_obstore(container)
    assert "AZURE_STORAGE_ACCOUNT_NAME" in error.value.hint
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "lab")
    assert open_obstore(container)[1] == "the managed identity of this machine"
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", "c2VjcmV0")
    assert open_obstore(container)[1] == "environment variable AZURE_STORAGE_ACCOUNT_KEY"


def test_google_credentials_that_cannot_be_read_are_refused(aws: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(aws / "none.json"))
    with pytest.raises(SettingsError, match=r"environment variables GOOGLE_\* cannot be used \(OpenCredentials\)"):
        open_obstore(parse_uri("gs://bucket/model"))
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS")
    monkeypatch.setenv("GOOGLE_SKIP_SIGNATURE", "true")
    assert open_obstore(parse_uri("gs://bucket/model"))[1].startswith("none found (GOOGLE_SKIP_SIGNATURE is set)")


def test_reading_never_waits_for_a_whole_file_and_never_tries_again_behind_our_back() -> None:
    store = open_obstore(BUCKET)[0]
    assert store.retry_config["max_retries"] == 0
    assert store.client_options["timeout"] != store.client_options["read_timeout"]
