"""What huggingface_hub raises, in our own words."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from wmtp.errors import NotFoundError, StorageError, WmtpError
from wmtp.untrusted import plain

OFFLINE_HINT = "check the network; with HF_HUB_OFFLINE=1, what huggingface_hub has in its cache is used as it is"


class BrokenOff(Exception):
    """A connection that broke off."""


@contextmanager
def asking(where: str, *, broken: type[Exception] | None = None) -> Iterator[None]:
    """Say in our own words what huggingface_hub raises.

    Its own words may hold addresses with signatures in them, so they are not even chained.

    Args:
        where: The address for the error.
        broken: What to raise for a connection that failed, which may be tried again.
    """
    from huggingface_hub import errors

    transport: Any = errors.HfHubHTTPError.__bases__[0]  # HTTPError of httpx, whichever release of that is in use
    try:
        yield
    except (WmtpError, BrokenOff):
        raise
    except errors.LocalEntryNotFoundError as error:  # said of every failed request; its cause says which
        raise _failure(where, error.__cause__ or error) from None
    except transport as error:
        if broken is not None and not isinstance(error, errors.HfHubHTTPError):
            raise broken(_reason(error)) from None
        raise _failure(where, error) from None
    except OSError as error:
        raise _failure(where, error) from None
    except (ValueError, KeyError, TypeError):
        raise StorageError(
            f"{where}: what answers is not a Hub", hint="check HF_ENDPOINT, and whether a proxy answers in its place"
        ) from None


_REFUSALS: dict[str, tuple[type[StorageError], str, str]] = {
    "GatedRepoError": (
        StorageError,
        "access to this repository has not been granted to {who}",
        "ask for access on the repository's page, then set HF_TOKEN or run 'hf auth login'",
    ),
    "RepositoryNotFoundError": (
        NotFoundError,
        "no such repository, or a private one that {who} may not see",
        "check the name; for a private repository set HF_TOKEN or run 'hf auth login'",
    ),
    "RevisionNotFoundError": (
        NotFoundError,
        "no such revision",
        "name a branch, tag or commit that the repository has",
    ),
    "RemoteEntryNotFoundError": (NotFoundError, "no such file", "see what is there with 'wmtp inspect'"),
    "DisabledRepoError": (
        StorageError,
        "the Hub has disabled this repository",
        "its page says why; choose another one",
    ),
    "OfflineModeIsEnabled": (
        StorageError,
        "HF_HUB_OFFLINE is set, and this is not in huggingface_hub's cache",
        "fetch it where there is a network: unset HF_HUB_OFFLINE",
    ),
    "FileMetadataError": (StorageError, "what answers is not a Hub", "check HF_ENDPOINT and proxies"),
}
_STATUSES = {
    401: ("the Hub does not accept the token", "make a new one: 'hf auth login', or HF_TOKEN"),
    403: ("the Hub does not allow this to {who}", "check what the token may do; make a new one with 'hf auth login'"),
    429: ("the Hub refuses more requests for now", "wait some minutes; with HF_TOKEN set more are allowed"),
}


def _failure(where: str, error: BaseException) -> StorageError:
    response = getattr(error, "response", None)
    has_token = response is not None and "authorization" in response.request.headers
    who = "this token" if has_token else "requests without a token"
    for kind in type(error).__mro__:
        if known := _REFUSALS.get(kind.__name__):
            return known[0](f"{where}: {known[1].format(who=who)}", hint=known[2])
    if response is not None:
        status = response.status_code
        problem, hint = _STATUSES.get(status, ("the Hub fails", f"try again later; {OFFLINE_HINT}"))
        return StorageError(f"{where}: {problem.format(who=who)} (status {status})", hint=hint)
    if isinstance(error, OSError) and error.errno is not None:
        return StorageError(f"{where}: {error.strerror}", hint="check HF_HOME and its disk")
    from huggingface_hub import constants

    host = plain(urlsplit(constants.ENDPOINT).hostname or "")
    return StorageError(f"{where}: {host} cannot be reached: {_reason(error)}", hint=OFFLINE_HINT)


def _reason(error: BaseException) -> str:
    text = str(error)
    return type(error).__name__ + (f" ({plain(text)})" if text and "://" not in text else "")
