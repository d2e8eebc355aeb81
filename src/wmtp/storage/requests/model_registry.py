"""Writing to MLflow's model registry: files become artifacts of a run, and a version of a model names them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from wmtp.errors import StorageError, URIError
from wmtp.untrusted import plain, show

SCHEME = "models:/"
_ADDRESS = "MLFLOW_TRACKING_URI"
_DIGEST = "wmtp.manifest_sha256"


@dataclass(frozen=True)
class ModelVersion:
    """A version of a model in the registry.

    Attributes:
        name: Of the model.
        number: Which version it is, from 1.
        run_id: The run whose artifacts it is made of.
    """

    name: str
    number: int
    run_id: str


class ModelRegistry:
    """The registry that `MLFLOW_TRACKING_URI` names.

    Args:
        address: `models:/NAME`.

    Raises:
        URIError: If that is no name of a model.
        StorageError: If the variable is not set.
        ModuleNotFoundError: If MLflow is not installed.
    """

    def __init__(self, address: str) -> None:
        self.name = address.removeprefix(SCHEME).strip("/")
        if not self.name or set(self.name) & set("/:@"):
            raise URIError(
                f"{show(address)}: this is no name of a model in MLflow's registry",
                hint=f"write {SCHEME}NAME; versions are numbered by MLflow",
            )
        if not os.environ.get(_ADDRESS):
            raise StorageError(
                f"{SCHEME}{self.name}: {_ADDRESS} is not set, so that there is no registry to write to",
                hint="set it to a server's address, or to sqlite:///PATH of the mlflow.db beside the runs",
            )
        from mlflow import MlflowClient

        with self._asking():
            self._client = MlflowClient(os.environ[_ADDRESS])

    def version_with(self, digest: str) -> ModelVersion | None:
        """Return the newest version whose manifest.json has this SHA-256; None where there is none."""
        with self._asking():
            found = self._client.search_model_versions(f"name = '{self._quoted}'")
        same = [self._version(each) for each in found if each.tags.get(_DIGEST) == digest]
        return max(same, key=lambda version: version.number, default=None)

    def knows_run(self, run_id: str) -> bool:
        """Return whether a run is one that this MLflow has."""
        from mlflow.exceptions import MlflowException

        try:
            self._client.get_run(run_id)
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return False
            raise self._failed(error) from error
        return True

    @contextmanager
    def run_for_it(self, experiment: str) -> Iterator[str]:
        """Yield a new run to keep files in, which is over when the block is."""
        with self._asking():
            known = self._client.get_experiment_by_name(experiment)
            place = known.experiment_id if known else self._client.create_experiment(experiment, _beside_database())
            run_id = self._client.create_run(place, run_name=f"wmtp push {self.name}").info.run_id
        status = "FAILED"
        try:
            yield run_id
            status = "FINISHED"
        finally:
            with self._asking():
                self._client.set_terminated(run_id, status)

    def upload(self, run_id: str, files: dict[str, Path], directory: str) -> None:
        """Keep files as artifacts of a run, below a directory; every one must have its size there afterwards.

        Raises:
            StorageError: If the server refuses, or has a file in another size.
        """
        with self._asking():
            for name, path in files.items():
                parent = PurePosixPath(directory, name).parent
                self._client.log_artifact(run_id, str(path), str(parent))
            arrived = dict(self._listed(run_id, directory))
        for name, path in files.items():
            found, expected = arrived.get(f"{directory}/{name}"), path.stat().st_size
            if found != expected:
                says = "is not there" if found is None else f"has {found:,} bytes there, and not {expected:,},"
                raise StorageError(
                    f"{SCHEME}{self.name}: {plain(name)} {says} after it was sent",
                    hint="push it again; look at the server's log and its artifact store",
                )

    def register(self, run_id: str, directory: str, digest: str) -> ModelVersion:
        """Make the artifacts of a run the next version of the model, which is made where there is none."""
        from mlflow.exceptions import MlflowException
        from mlflow.store.artifact.runs_artifact_repo import RunsArtifactRepository

        with self._asking():
            try:
                self._client.create_registered_model(self.name)
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
            source = RunsArtifactRepository.get_underlying_uri(
                f"runs:/{run_id}/{directory}", tracking_uri=os.environ[_ADDRESS]
            )
            made = self._client.create_model_version(self.name, source, run_id, tags={_DIGEST: digest})
        return self._version(made)

    @property
    def _quoted(self) -> str:
        return self.name.replace("'", "\\'")

    def _listed(self, run_id: str, directory: str) -> Iterator[tuple[str, int | None]]:
        for found in self._client.list_artifacts(run_id, directory):
            if found.is_dir:
                yield from self._listed(run_id, found.path)
            else:
                yield found.path, found.file_size

    def _version(self, found: Any) -> ModelVersion:
        return ModelVersion(self.name, int(found.version), str(found.run_id))

    @contextmanager
    def _asking(self) -> Iterator[None]:
        from mlflow.exceptions import MlflowException

        try:
            yield
        except (MlflowException, OSError) as error:
            raise self._failed(error) from error

    def _failed(self, error: Exception) -> StorageError:
        said = str(error).strip().partition("\n")[0]
        return StorageError(
            f"{SCHEME}{self.name}: MLflow answers: {plain(said)}",
            hint=f"check {_ADDRESS}, and whether the server lets you write; nothing was registered",
        )


def _beside_database() -> str | None:
    """Return where files go if MLflow is a file of SQLite, which would have them below this process's directory."""
    kind, _, path = os.environ[_ADDRESS].partition(":///")
    return (Path(path).absolute().parent / "mlruns").as_uri() if kind == "sqlite" else None
