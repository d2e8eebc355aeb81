"""Data sets of the Hugging Face Hub, kept in the caches of its own libraries."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from wmtp.errors import StorageError
from wmtp.untrusted import plain, show


@dataclass(frozen=True)
class DatasetAddress:
    """A data set on the Hub.

    Attributes:
        repository: `org/name`.
        revision: Branch, tag or commit; None: its default branch.
    """

    repository: str
    revision: str | None


def snapshot(dataset: DatasetAddress, patterns: str | Sequence[str]) -> Path:
    """Return the directory of a data set's files at one commit, of which those that match patterns are there.

    Raises:
        StorageError: If they cannot be had; with HF_HUB_OFFLINE, if they are not in huggingface_hub's cache.
    """
    from huggingface_hub import snapshot_download

    allowed = patterns if isinstance(patterns, str) else list(patterns)
    with _hub_errors(dataset):
        return Path(
            snapshot_download(
                dataset.repository, repo_type="dataset", revision=dataset.revision, allow_patterns=allowed
            )
        )


def file_sizes(dataset: DatasetAddress) -> dict[str, int]:
    """Return the bytes of each file of a data set, by its name.

    Raises:
        StorageError: If they cannot be listed; so with HF_HUB_OFFLINE.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import RepoFile

    with _hub_errors(dataset):
        tree = HfApi().list_repo_tree(
            dataset.repository, repo_type="dataset", revision=dataset.revision, recursive=True
        )
        return {entry.path: entry.size for entry in tree if isinstance(entry, RepoFile)}


def prepared_split(dataset: DatasetAddress, config: str | None, split: str) -> list[Path]:
    """Return the Arrow files of one split, which the library `datasets` makes of whatever the data set is.

    Args:
        dataset: The data set.
        config: Which of its configurations; None: its only one, or the one that it names as default.
        split: `train` or the like.

    Raises:
        StorageError: If it cannot be had, or has no such configuration or split.
    """
    from datasets import load_dataset

    with _hub_errors(dataset):
        loaded = load_dataset(dataset.repository, config, split=split, revision=dataset.revision)
        return [Path(file["filename"]) for file in loaded.cache_files]


@contextmanager
def _hub_errors(dataset: DatasetAddress) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as error:
        revision = f"@{dataset.revision}" if dataset.revision else ""
        raise StorageError(
            f"hf://datasets/{plain(dataset.repository)}{revision}: {type(error).__name__}: {show(str(error))}",
            hint="check its name, and that this machine may read it: HF_TOKEN, and HF_HUB_OFFLINE not set",
        ) from error
