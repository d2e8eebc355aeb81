"""Links within a cache of Hugging Face, and what a co-tenant changes between the plan and the load."""

from __future__ import annotations

from pathlib import Path

from hostile.draft import WEIGHTS
from hostile.good import SNAPSHOT, snapshot_layout
from hostile.link_cases import OUT, C, M, after, refused

_CHANGED = ("removed", "cut", "emptied", "a pipe", "a directory", "a link out")


def _foreign_blob(directory: Path) -> None:
    entry = directory / "models--someone--tiny" / "snapshots" / "0123abcd"
    other = directory.parent / "outside" / "blobs"
    other.mkdir(parents=True)
    (entry / WEIGHTS).resolve().rename(other / "blob")
    (entry / WEIGHTS).unlink()
    (entry / WEIGHTS).symlink_to("../../../../outside/blobs/blob")


def _beside_blobs(directory: Path) -> None:
    entry = directory / "models--someone--tiny"
    (entry / "refs").mkdir()
    (entry / "snapshots" / "0123abcd" / C).resolve().rename(entry / "refs" / "main")
    (entry / "snapshots" / "0123abcd" / C).unlink()
    (entry / "snapshots" / "0123abcd" / C).symlink_to("../../refs/main")


def _blobs_elsewhere(directory: Path) -> None:
    entry = directory / "models--someone--tiny"
    (directory.parent / "outside").mkdir()
    (entry / "blobs").rename(directory.parent / "outside" / "blobs")
    (entry / "blobs").symlink_to("../../outside/blobs")


def _no_cache(directory: Path) -> None:
    # An entry of the cache is called models--..., and this is somebody's own directory of blobs.
    (directory / "snapshots" / "tiny").mkdir(parents=True)
    (directory / "blobs").mkdir()
    for name in (M, WEIGHTS):
        (directory / name).rename(directory / "snapshots" / "tiny" / name)
    (directory / C).rename(directory / "blobs" / "private.json")
    (directory / "snapshots" / "tiny" / C).symlink_to("../../blobs/private.json")


CASES = [
    refused(
        "a blob of another entry of the cache",
        "StorageError",
        (WEIGHTS, OUT),
        snapshot_layout,
        after(_foreign_blob),
        uri=SNAPSHOT,
    ),
    refused(
        "a link to another part of the cache",
        "StorageError",
        (C, OUT),
        snapshot_layout,
        after(_beside_blobs),
        uri=SNAPSHOT,
    ),
    refused(
        "a directory that only looks like a cache",
        "StorageError",
        (C, OUT),
        after(_no_cache),
        uri="{directory}/snapshots/tiny",
        peer=None,
    ),
    refused(
        "blobs that are a link out themselves",
        "StorageError",
        (M, OUT),
        snapshot_layout,
        after(_blobs_elsewhere),
        uri=SNAPSHOT,
    ),
    *[
        refused(
            f"weights that are {change} after the plan {'mapped' if mmap else 'copied'}",
            "StorageError NotFoundError IntegrityError FormatError",
            WEIGHTS,
            call="changing",
            keywords={"file": WEIGHTS, "change": change, "mmap": mmap},
            peer=None,
        )
        for change in _CHANGED
        for mmap in (True, False)
    ],
]
