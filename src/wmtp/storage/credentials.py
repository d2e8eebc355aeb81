"""Which client of obstore speaks to a bucket: with whose credentials, and with how much patience.

For S3 the credentials are those that boto3 would find; Google's and Azure's obstore reads from the environment itself.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

from wmtp.errors import SettingsError
from wmtp.storage.requests.aws import find_access
from wmtp.storage.requests.retries import longest_silence, retry_config, transfer_timeout
from wmtp.storage.uri import ModelURI
from wmtp.untrusted import show

_MEMORY: dict[str, Any] = {}
# The first variable that is set is the source; obstore asks in this order.
_SECRET = re.compile("key|token|secret|sas|password")
_SECRET_LENGTH = 8  # what is shorter is no secret, and may well be a word
_GOOGLE = (
    "GOOGLE_SERVICE_ACCOUNT",
    "GOOGLE_SERVICE_ACCOUNT_PATH",
    "GOOGLE_SERVICE_ACCOUNT_KEY",
    "GOOGLE_BEARER_TOKEN",
    "GOOGLE_APPLICATION_CREDENTIALS",
)
_AZURE = (
    "AZURE_STORAGE_TOKEN",
    "AZURE_STORAGE_ACCOUNT_KEY",
    "AZURE_STORAGE_ACCESS_KEY",
    "AZURE_STORAGE_MASTER_KEY",
    "AZURE_FEDERATED_TOKEN_FILE",
    "AZURE_STORAGE_CLIENT_SECRET",
    "AZURE_CLIENT_SECRET",
    "AZURE_STORAGE_SAS_KEY",
    "AZURE_STORAGE_SAS_TOKEN",
    "AZURE_USE_AZURE_CLI",
)


def open_obstore(uri: ModelURI, *, for_writing: bool = False) -> tuple[Any, str]:
    """Open the bucket of an address, without a request to it.

    Args:
        uri: Its address; key and revision do not count.
        for_writing: A client for uploads, which tries each part again by itself and lets slow links take their time.
            A client for reading fails at once, so that who reads can go on from where it was.

    Returns:
        obstore's client, and where the credentials came from, in words.

    Raises:
        SettingsError: If the settings that lead to the bucket are malformed.
        StorageError: If credentials are configured, but cannot be had.
    """
    return _OPENERS[uri.scheme](uri, for_writing)


def service_of(store: Any) -> str:
    """Return what tells the service that a client of obstore speaks to from others: a digest of address and account."""
    config = dict(store.config)
    known = " ".join(str(config[key]) for key in ("endpoint", "account_name", "base_url") if key in config)
    return hashlib.sha256(known.encode()).hexdigest()[:16]  # it is written down, and an address can have a secret in it


def without_secrets(text: str, store: Any) -> str:
    """Return a text without the credentials that a client of obstore was given: a server may repeat them."""
    given = dict(getattr(store, "config", {}))
    secrets = [str(value) for key, value in given.items() if _SECRET.search(key) and len(str(value)) >= _SECRET_LENGTH]
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, "[credentials]")
    return text


def _open_memory(uri: ModelURI, for_writing: bool) -> tuple[Any, str]:  # noqa: ARG001
    from obstore.store import MemoryStore

    return _MEMORY.setdefault(uri.location, MemoryStore()), "none are needed"


def _open_s3(uri: ModelURI, for_writing: bool) -> tuple[Any, str]:
    from obstore.store import S3Store

    access = find_access(uri)
    region = access.region or "us-east-1"
    # Always said, since obstore would read it from the environment, where it may be there to be ignored.
    address = access.endpoint or f"https://s3.{region}.amazonaws.com{'.cn' if region.startswith('cn-') else ''}"
    config: dict[str, Any] = {"aws_endpoint_url_s3": address, "endpoint": address, "region": region}
    config |= {"disable_bulk_delete": True, **access.credentials}  # one DELETE, which every server knows
    if for_writing:
        config["checksum_algorithm"] = os.environ.get("AWS_CHECKSUM_ALGORITHM", "sha256")
    # The bucket in the path: own servers know it nowhere else, and no certificate covers buckets with dots.
    how = _how(for_writing, address.startswith("http:"))
    store = _opened(lambda: S3Store(uri.location, virtual_hosted_style_request=False, **config, **how), "AWS_*")
    return store, access.source


def _open_google(uri: ModelURI, for_writing: bool) -> tuple[Any, str]:
    from obstore.store import GCSStore

    source = _named_by(_GOOGLE, "GOOGLE_SKIP_SIGNATURE")
    default = "'gcloud auth application-default login', or the service account of this machine"
    is_http = os.environ.get("GOOGLE_BASE_URL", "").startswith("http:")
    return _opened(lambda: GCSStore(uri.location, **_how(for_writing, is_http)), "GOOGLE_*"), source or default


def _open_azure(uri: ModelURI, for_writing: bool) -> tuple[Any, str]:
    from obstore.store import AzureStore

    has_emulator = os.environ.get("AZURE_STORAGE_USE_EMULATOR", "").lower() in ("1", "true")
    if not os.environ.get("AZURE_STORAGE_ACCOUNT_NAME") and not has_emulator:
        raise SettingsError(
            f"{uri.scheme}://{uri.location}: the environment does not say which storage account this container is in",
            hint="export AZURE_STORAGE_ACCOUNT_NAME=<account>, and AZURE_STORAGE_ACCOUNT_KEY for its key",
        )
    source = _named_by(_AZURE, "AZURE_SKIP_SIGNATURE") or "the managed identity of this machine"
    endpoint = os.environ.get("AZURE_STORAGE_ENDPOINT") or os.environ.get("AZURE_ENDPOINT", "")
    is_http = has_emulator or endpoint.startswith("http:")
    return _opened(lambda: AzureStore(uri.location, **_how(for_writing, is_http)), "AZURE_*"), source


def _opened(opening: Callable[[], Any], variables: str) -> Any:
    from obstore.exceptions import BaseError

    try:
        return opening()
    except (BaseError, ValueError) as error:
        # Only the name that obstore gives to the fault: its text may have the value in it.
        kind = next(iter(re.findall(r"\n\s+source: (\w+)", str(error))), type(error).__name__)
        raise SettingsError(
            f"the environment variables {variables} cannot be used ({kind})",
            hint="check the values, and that the files that they name are there and whole",
        ) from None


def _how(for_writing: bool, allow_http: bool) -> dict[str, Any]:
    # A read that takes longer than the limit goes on from where it was, if anything to speak of had come: a server
    # that drips is no different from one that is silent. For uploads silence is normal while a part goes out.
    silence = transfer_timeout() if for_writing else longest_silence()
    options: dict[str, Any] = {
        "allow_http": allow_http,
        "timeout": timedelta(days=7) if for_writing else timedelta(seconds=transfer_timeout()),
        "read_timeout": timedelta(seconds=silence),
        "connect_timeout": timedelta(seconds=min(silence, 10)),
        "user_agent": "wmtp",
    }
    if bundle := os.environ.get("AWS_CA_BUNDLE"):
        try:
            options["root_certificate"] = Path(bundle).read_bytes()
        except OSError as error:
            problem = f"AWS_CA_BUNDLE names {show(bundle)}: {error.strerror}"
            raise SettingsError(problem, hint="name a file of certificates in PEM format") from error
    # Reading goes on from where it was with the version pinned, which obstore's own retries do not promise.
    return {"client_options": options, "retry_config": retry_config() if for_writing else {"max_retries": 0}}


def _named_by(names: tuple[str, ...], skip: str) -> str:
    if os.environ.get(skip, "").lower() in ("1", "true"):
        return f"none found ({skip} is set), so requests are unsigned"
    return next((f"environment variable {name}" for name in names if os.environ.get(name)), "")


_OPENERS: dict[str, Callable[[ModelURI, bool], tuple[Any, str]]] = {
    "memory": _open_memory,
    "s3": _open_s3,
    "gs": _open_google,
    "az": _open_azure,
}
