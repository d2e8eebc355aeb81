"""The environment of a test that has a server; what the person who runs the tests has exported is out of the way."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

# Such as AWS_PROFILE, which comes before keys, or GOOGLE_APPLICATION_CREDENTIALS.
_FOREIGN = ("AWS_", "GOOGLE_", "GCS_", "AZURE_", "WMTP_", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy")


def use_no_server(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    """Leave this process, and its children, without a word about stores, and with an empty place for configuration.

    Args:
        monkeypatch: Puts everything back.
        home: An empty directory, where the cache and all configuration of clients are looked for.
    """
    for name in [name for name in os.environ if name.startswith(_FOREIGN)]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(home / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(home / "credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("WMTP_CACHE", str(home / "cache"))


def use_server(
    monkeypatch: pytest.MonkeyPatch,
    endpoint: str,
    *,
    home: Path,
    key: str = "key",
    secret: str = "secret",
    token: str = "",
) -> None:
    """Point every S3 client of this process, and of its children, at one endpoint.

    Args:
        monkeypatch: Puts everything back.
        endpoint: `http://host:port`.
        home: As in `use_no_server`.
        key: The access key's id.
        secret: Its secret.
        token: A session token, for temporary credentials.
    """
    use_no_server(monkeypatch, home)
    settings = {
        "AWS_ACCESS_KEY_ID": key,
        "AWS_SECRET_ACCESS_KEY": secret,
        "AWS_SESSION_TOKEN": token,
        "AWS_ENDPOINT_URL_S3": endpoint,
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    for name, value in settings.items():
        if value:
            monkeypatch.setenv(name, value)
