"""Where an S3 bucket is reached, and with whose credentials: boto3's rules.

What the environment and the profiles of ~/.aws say counts, single sign-on, and the roles of machines and containers.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from wmtp.errors import SettingsError, StorageError, WmtpError
from wmtp.storage.uri import ModelURI
from wmtp.untrusted import plain, show

_IGNORE = "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS"
_PROFILES = ("AWS_PROFILE", "AWS_DEFAULT_PROFILE")
_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
_REGIONS = ("AWS_REGION", "AWS_DEFAULT_REGION")
_KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
NOT_FOUND = (
    "none found (looked in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE, ~/.aws/credentials, "
    "~/.aws/config and the roles of this machine or container), so requests are unsigned"
)
# Keys of which one is missing would be an error for obstore, although it does not use them.
_UNSIGNED = {"skip_signature": True, "access_key_id": "unsigned", "secret_access_key": "unsigned"}
# botocore's names of sources, in words; %s is the profile.
_SOURCES = {
    "env": "environment variables AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    "shared-credentials-file": "profile %s in the credentials file (~/.aws/credentials)",
    "config-file": "profile %s in the configuration file (~/.aws/config)",
    "custom-process": "the credential_process of profile %s",
    "assume-role": "the role that profile %s assumes",
    "assume-role-with-web-identity": "a role assumed with a web identity token",
    "sso": "single sign-on of profile %s",
    "login": "'aws login' of profile %s",
    "container-role": "the role of this container",
    "iam-role": "the role of this machine",
}


@dataclass(frozen=True)
class Access:
    """How a bucket is reached.

    Attributes:
        endpoint: The server's address; empty for Amazon's own.
        region: Empty if none is configured.
        source: Where the credentials came from, in words.
        credentials: The same in obstore's terms.
    """

    endpoint: str
    region: str
    source: str
    credentials: dict[str, Any] = field(repr=False)


def find_access(uri: ModelURI) -> Access:
    """Find endpoint, region and credentials.

    Raises:
        SettingsError: If a variable or profile is malformed or unknown.
        StorageError: If credentials are configured, but cannot be had.
    """
    return _from_environment() or _from_botocore(uri)


def bucket_region(endpoint: str, bucket: str) -> str:
    """Ask a server in which region a bucket is, which it tells whoever asks; empty if it does not say."""
    import http.client

    parts = urlsplit(endpoint)
    connect = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = connect(parts.netloc, timeout=5)
    try:
        connection.request("HEAD", f"{parts.path}/{bucket}")
        region = connection.getresponse().getheader("x-amz-bucket-region", "")
    except (OSError, http.client.HTTPException):
        return ""
    finally:
        connection.close()
    return region if re.fullmatch(r"[a-z0-9-]{1,40}", region) else ""


def _from_environment() -> Access | None:
    """Answer without botocore, whose import takes as long as reading a checkpoint's metadata."""
    key, secret = map(os.environ.get, _KEYS)
    is_all_here = bool(_first(_ENDPOINTS) and _first(_REGIONS)) or not _config_file().exists()
    if not key or not secret or _first(_PROFILES) or not is_all_here:
        return None
    source = _SOURCES["env"]
    endpoint = "" if os.environ.get(_IGNORE, "").lower() == "true" else _endpoint_of_environment()
    static = _static(key, secret, os.environ.get("AWS_SESSION_TOKEN"), source=source)
    return Access(endpoint, _first(_REGIONS), source, static)


def _from_botocore(uri: ModelURI) -> Access:
    import botocore.exceptions
    import botocore.session

    try:
        return _of_session(botocore.session.Session())
    except (botocore.exceptions.ProfileNotFound, botocore.exceptions.ConfigParseError) as error:
        raise _settings_error(error) from None
    except (botocore.exceptions.PartialCredentialsError, botocore.exceptions.InvalidConfigError) as error:
        raise _settings_error(error) from None
    except botocore.exceptions.BotoCoreError as error:
        raise _no_credentials(uri, error) from None


def _of_session(session: Any) -> Access:
    is_ignored = bool(session.get_config_variable("ignore_configured_endpoint_urls"))
    endpoint = "" if is_ignored else _endpoint(session.full_config, session.get_scoped_config())
    region = os.environ.get("AWS_REGION") or session.get_config_variable("region") or ""
    credentials = session.get_credentials()
    if credentials is None:
        return Access(endpoint, region, NOT_FOUND, _UNSIGNED)
    first = credentials.get_frozen_credentials()
    source = _source(credentials.method, session.get_config_variable("profile"))
    _static(first.access_key, first.secret_key, first.token, source=source)
    return Access(endpoint, region, source, {"credential_provider": _provider(credentials)})


def _provider(credentials: Any) -> Callable[[], dict[str, Any]]:
    """Give what is valid now whenever obstore asks, which it does every five minutes: botocore renews it in time."""

    def provide() -> dict[str, Any]:
        frozen = credentials.get_frozen_credentials()
        return {
            "access_key_id": frozen.access_key,
            "secret_access_key": frozen.secret_key,
            "token": frozen.token,
            "expires_at": datetime.now(UTC) + timedelta(minutes=5),
        }

    return provide


def _static(key: str | None, secret: str | None, token: str | None, *, source: str) -> dict[str, Any]:
    names = ("access key id", "secret access key", "session token")
    for name, value in zip(names, (key, secret, token), strict=True):
        if value and not re.fullmatch(r"[!-~]+", value):  # obstore would panic
            raise SettingsError(
                f"the {name} from {source} has a space, a line break or another character in it that none has",
                hint="set it again, without what does not belong to it",
            )
    given = {"access_key_id": key, "secret_access_key": secret, "session_token": token}
    return {name: value for name, value in given.items() if value}


def _endpoint(full: dict[str, Any], scoped: dict[str, Any]) -> str:
    if endpoint := _endpoint_of_environment():
        return endpoint
    services = full.get("services", {}).get(scoped.get("services"), {}).get("s3", {})
    found = services.get("endpoint_url") if isinstance(services, dict) else None
    return _checked(found or scoped.get("endpoint_url") or "", "endpoint_url in ~/.aws/config")


def _endpoint_of_environment() -> str:
    name = next((name for name in _ENDPOINTS if os.environ.get(name)), "")
    return _checked(os.environ[name], name) if name else ""


def _checked(endpoint: str, named_by: str) -> str:
    """Refuse what is no address of a server; obstore would panic."""
    hint = "write it as https://host or http://host:port"
    if not endpoint:
        return ""
    try:
        parts = urlsplit(endpoint)
        is_address = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        raise SettingsError(f"{named_by} is no address of a server", hint=hint) from None
    if parts.username is not None or parts.query or parts.fragment or "@" in endpoint:
        raise SettingsError(f"{named_by} has credentials or a query in it", hint=hint)
    if not is_address or not re.fullmatch(r"[!-~]+", endpoint):
        raise SettingsError(f"{named_by} is {show(endpoint)}, which is no address of a server", hint=hint)
    return endpoint.rstrip("/")


def _source(method: str, profile: str | None) -> str:
    words = _SOURCES.get(method, f"botocore's source {show(method)}")
    return words % show(profile or "default") if "%s" in words else words


def _first(names: tuple[str, ...]) -> str:
    return next(filter(None, map(os.environ.get, names)), "")


def _config_file() -> Path:
    return Path(os.environ.get("AWS_CONFIG_FILE", "~/.aws/config")).expanduser()


def _settings_error(error: Exception) -> WmtpError:
    return SettingsError(
        f"the AWS configuration cannot be used: {plain(str(error))}",
        hint="correct AWS_PROFILE, or the files ~/.aws/config and ~/.aws/credentials ('aws configure list-profiles')",
    )


def _no_credentials(uri: ModelURI, error: Exception) -> WmtpError:
    return StorageError(
        f"{uri.scheme}://{uri.location}: credentials are configured, but cannot be had: {plain(str(error))}",
        hint="log in again ('aws sso login', for instance), or correct the profile in ~/.aws/config",
    )
