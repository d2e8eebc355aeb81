"""Putting a checkpoint into MLflow's model registry, as the next version of a model."""

from __future__ import annotations

import hashlib
import os
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from wmtp.errors import TrainingError
from wmtp.manifest import MANIFEST_FILE
from wmtp.storage.requests.model_registry import SCHEME, ModelRegistry
from wmtp.transport.outgoing import checkpoint_in, new_manifest, outgoing
from wmtp.transport.report import MoveReport, said_by
from wmtp.untrusted import parse_json_object

_TRACKERS_FILE = "trackers.json"  # as training writes it
_EXPERIMENT = "MLFLOW_EXPERIMENT_NAME"


@dataclass(frozen=True)
class RegistryPushReport(MoveReport):
    """What was put into the registry.

    Attributes:
        version: Its number.
        run_id: The run of MLflow whose artifacts it is made of: the training run's, where that is known.
    """

    version: int
    run_id: str

    def summary(self) -> list[str]:
        """Return the report in a few lines for a person."""
        was_there = all(file.was_here for file in self.files)
        place = f"was {self.uri} already" if was_there else f"is now {self.uri}"
        lines = [f"{self.path} {place}: {self.amount}", *said_by(self.files)]
        return [*lines, f"version {self.version}, of the run {self.run_id}", *self.omission]


def push_to_registry(directory: Path, uri: str, *, allow_symlinks: bool = False) -> RegistryPushReport:
    """Make a checkpoint, or the final one of a run, the next version of a model in MLflow's registry.

    It proves itself first, as for an object store. Its files become artifacts of the run that trained it, where MLflow
    has that, else of a run of their own. What is a version already is not pushed again. MLflow tells sizes, no digests:
    whoever downloads it holds it to its manifest.json, by `wmtp validate --deep`.

    Args:
        directory: The checkpoint, a run, or an export.
        uri: `models:/NAME`, in the registry that `MLFLOW_TRACKING_URI` names.
        allow_symlinks: Follow links that leave the directory.

    Raises:
        URIError: If that is no name of a model.
        StorageError: If there is no registry, it refuses, or bytes cannot be had.
        ChangedError: If a file changes meanwhile.
        IntegrityError: If a file is not what its manifest says.
        TrainingError: If the run's trackers.json is malformed.
        WmtpError: If the directory is no checkpoint.
    """
    started, registry, checkpoint = time.monotonic(), ModelRegistry(uri), checkpoint_in(directory)
    source = outgoing(checkpoint, allow_symlinks=allow_symlinks, needs_metadata=False)
    moved, paths = source.verified(), dict(source.paths)
    with TemporaryDirectory() as scratch:
        if MANIFEST_FILE not in paths:
            data, manifest = new_manifest(moved)
            paths[MANIFEST_FILE] = Path(scratch, MANIFEST_FILE)
            paths[MANIFEST_FILE].write_bytes(data)
            moved.append(manifest)
        digest = hashlib.sha256(paths[MANIFEST_FILE].read_bytes()).hexdigest()
        version, place = registry.version_with(digest), f"checkpoint-{digest[:12]}"
        was_here = version is not None and not registry.absent(version.run_id, paths, place)
        if version is None or not was_here:
            with _run(registry, checkpoint) as run_id:
                registry.upload(run_id, paths, place)
            source.check_unchanged()
            version = registry.register(run_id, place, digest)
    return RegistryPushReport(
        uri=f"{SCHEME}{version.name}/{version.number}",
        path=str(checkpoint),
        files=tuple(replace(file, was_here=was_here) for file in sorted(moved, key=lambda file: file.name)),
        seconds=time.monotonic() - started,
        left_out=source.left_out,
        version=version.number,
        run_id=version.run_id,
    )


def _run(registry: ModelRegistry, checkpoint: Path) -> AbstractContextManager[str]:
    """Return the run of MLflow that trained a checkpoint, where that is known, else a new one."""
    path = checkpoint.parent / _TRACKERS_FILE
    if path.is_file():
        known = parse_json_object(path.read_bytes(), where=str(path), error=TrainingError).get("mlflow")
        if isinstance(known, str) and registry.knows_run(known):
            return nullcontext(known)
    return registry.run_for_it(os.environ.get(_EXPERIMENT) or "wmtp")
