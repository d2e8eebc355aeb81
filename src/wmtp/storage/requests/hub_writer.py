"""Writing to one repository of the Hugging Face Hub: files are uploaded first, and one commit makes them all visible.

A large file that has arrived is known to the Hub by its digest before any commit names it: an upload that broke off
goes on with the files that are still missing.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wmtp.errors import ChangedError, NotFoundError, StorageError
from wmtp.storage.requests.hub_client import HubClient
from wmtp.storage.requests.hub_failures import asking
from wmtp.storage.uri import ModelURI
from wmtp.untrusted import plain

_NO_TOKEN = "run 'hf auth login', or set HF_TOKEN to a token that may write to this repository"  # noqa: S105  a hint


@dataclass(frozen=True)
class Standing:
    """What a branch of a repository was when it was asked for.

    Attributes:
        commit: Its newest commit.
        is_private: Whether only those who were let in may read it.
        blobs: What each file is: the SHA-256 of a large one, the id that git gives to a small one.
    """

    commit: str
    is_private: bool
    blobs: Mapping[str, str]


class HubWriter:
    """One branch of one repository, written to with the token of huggingface_hub.

    Args:
        uri: Repository, and a branch; None means `main`.

    Raises:
        StorageError: If there is no token, or requests are forbidden.
    """

    def __init__(self, uri: ModelURI) -> None:
        from huggingface_hub import HfApi, get_token, is_offline_mode

        self.uri, self._branch, self._api = uri, uri.revision or "main", HfApi()
        if is_offline_mode():
            raise StorageError(f"{uri}: HF_HUB_OFFLINE is set, and forbids to push", hint="unset it, and push again")
        if get_token() is None:
            raise StorageError(f"{uri}: nothing is written to the Hub without a token, and none is set", hint=_NO_TOKEN)

    def standing(self) -> Standing | None:
        """Return what is there now; None where there is no such repository, or none that the token may see."""
        try:
            with asking(str(self.uri)):
                found = self._api.model_info(self.uri.location, revision=self._branch)
            client = HubClient(ModelURI(self.uri.scheme, self.uri.location, "", found.sha))
            return Standing(
                str(found.sha), bool(found.private), {name: file.blob for name, file in client.files.items()}
            )
        except NotFoundError as error:
            if "no such revision" in error.problem:
                raise StorageError(
                    f"{self.uri}: the repository has no branch {plain(self._branch)}",
                    hint=f"make it: hf repos branch create {self.uri.location} {plain(self._branch)}; or push to main",
                ) from None
            return None

    def create(self, *, private: bool) -> Standing:
        """Make the repository, and return what stands in it."""
        if self._branch != "main":
            raise StorageError(
                f"{self.uri}: there is no such repository, and a new one has the branch main alone",
                hint=f"push to hf://{self.uri.location} first",
            )
        with asking(str(self.uri)):
            self._api.create_repo(self.uri.location, private=private)
        standing = self.standing()
        if standing is None:
            raise StorageError(f"{self.uri}: it was made and is not there", hint="try again in a minute")
        return standing

    def upload(self, files: Mapping[str, Path | bytes]) -> list[Any]:
        """Upload what is large, and return what `commit` takes; nothing is visible yet."""
        from huggingface_hub import CommitOperationAdd

        with asking(str(self.uri)), _silently():
            additions = [
                CommitOperationAdd(name, str(source) if isinstance(source, Path) else source)
                for name, source in files.items()
            ]
            self._upload_large(additions)
        return additions

    def _upload_large(self, additions: list[Any]) -> None:
        try:
            self._api.preupload_lfs_files(self.uri.location, additions, revision=self._branch, free_memory=False)
        except RuntimeError as error:  # of the client, or of hf_xet, for whatever went wrong; may have an address in it
            response = getattr(error.__cause__, "response", None)
            status = f" (status {response.status_code})" if response is not None else ""
            raise StorageError(
                f"{self.uri}: the upload of a large file broke off{status}; nothing of it is visible",
                hint="check the network and what the token may do; the same command goes on with what is missing",
            ) from None

    def commit(self, additions: list[Any], deleted: Iterable[str], *, parent: str, message: str) -> str:
        """Make what was uploaded visible in one commit on top of the one that was seen, and return it.

        Raises:
            ChangedError: If somebody else has committed since.
            StorageError: If the Hub refuses the commit, or the front matter of README.md.
        """
        from huggingface_hub import CommitOperationDelete

        operations = [*additions, *(CommitOperationDelete(name, is_folder=False) for name in deleted)]
        with asking(str(self.uri)), _silently(), self._refusals():
            made = self._api.create_commit(
                self.uri.location, operations, commit_message=message, revision=self._branch, parent_commit=parent
            )
        return str(made.oid)

    @contextmanager
    def _refusals(self) -> Iterator[None]:
        from huggingface_hub import errors

        try:
            yield
        except errors.HfHubHTTPError as error:
            if error.response is None or error.response.status_code not in (409, 412):
                raise
            raise ChangedError(
                f"{self.uri}: somebody else has committed there meanwhile",
                hint="see what it was; then push again, or to another repository",
            ) from None
        except ValueError as error:
            if "README.md" not in str(error):
                raise
            raise StorageError(
                f"{self.uri}: the Hub refuses README.md: {plain(' '.join(str(error).split()))}",
                hint="mend the lines between its first two '---', then push again",
            ) from None


@contextmanager
def _silently() -> Iterator[None]:
    """Keep bars and warnings of huggingface_hub off stderr: what is told is told by us."""
    from huggingface_hub import utils

    tools: Any = utils
    was_silent = tools.are_progress_bars_disabled()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if not was_silent:
            tools.disable_progress_bars()
        try:
            yield
        finally:
            if not was_silent:
                tools.enable_progress_bars()
