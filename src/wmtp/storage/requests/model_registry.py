"""Writing to MLflow's model registry: files become artifacts of a run, and a version of a model names them."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

from wmtp.errors import MissingPackageError, StorageError, URIError, WmtpError
from wmtp.untrusted import plain, show

SCHEME = "models:/"
_ADDRESS = "MLFLOW_TRACKING_URI"
_DIGEST = "wmtp.manifest_sha256"
_UNKNOWN = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")


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
        StorageError: If the variable is not set, or leads nowhere.
        ModuleNotFoundError: If MLflow is not installed.
    """

    def __init__(self, address: str) -> None:
        self.name, self._server = address.removeprefix(SCHEME).strip("/"), os.environ.get(_ADDRESS, "")
        if not self.name or set(self.name) & set("/:@'\""):
            raise URIError(
                f"{show(address)}: this is no name of a model in MLflow's registry",
                hint=f"write {SCHEME}NAME; versions are numbered by MLflow",
            )
        if not self._server:
            raise StorageError(
                f"{SCHEME}{self.name}: {_ADDRESS} is not set, so that there is no registry to write to",
                hint="set it to a server's address, or to sqlite:///PATH of the mlflow.db beside the runs",
            )
        from mlflow import MlflowClient

        with self._asking():
            self._client = MlflowClient(self._server)

    def version_with(self, digest: str) -> ModelVersion | None:
        """Return the newest version whose manifest.json has this SHA-256; None where there is none."""
        with self._asking():
            found = self._client.search_model_versions(f"name = '{self.name}'")
        same = [self._version(each) for each in found if each.tags.get(_DIGEST) == digest and each.status == "READY"]
        return max(same, key=lambda version: version.number, default=None)

    def knows_run(self, run_id: str) -> bool:
        """Return whether a run is one that this MLflow has, and keeps."""
        from mlflow.exceptions import MlflowException

        with self._asking():
            try:
                kept: bool = self._client.get_run(run_id).info.lifecycle_stage == "active"
            except MlflowException as error:
                if error.error_code not in _UNKNOWN:
                    raise
                return False
        return kept

    @contextmanager
    def run_for_it(self, experiment: str) -> Iterator[str]:
        """Yield a new run to keep files in, which is over when the block is."""
        with self._asking():
            known = self._client.get_experiment_by_name(experiment)
            place = known.experiment_id if known else self._client.create_experiment(experiment, self._beside_database)
            run_id = self._client.create_run(place, run_name=f"wmtp push {self.name}").info.run_id
        try:
            yield run_id
        except BaseException:
            with suppress(StorageError):
                self._end(run_id, "FAILED")
            raise
        self._end(run_id, "FINISHED")

    def upload(self, run_id: str, files: Mapping[str, Path], directory: str) -> None:
        """Keep files as artifacts of a run, below a directory; every one must have its size there afterwards.

        Raises:
            StorageError: If the server refuses, or has a file in another size.
        """
        with self._asking():
            for name, path in files.items():
                self._client.log_artifact(run_id, str(path), str(PurePosixPath(directory, name).parent))
        if absent := self.absent(run_id, files, directory):
            raise StorageError(
                f"{SCHEME}{self.name}: {', '.join(map(plain, absent))}: not there in its size after it was sent",
                hint="push it again; look at the server's log and its artifact store",
            )

    def absent(self, run_id: str, files: Mapping[str, Path], directory: str) -> list[str]:
        """Return which files a run does not have in their size among its artifacts."""
        with self._asking():
            arrived = dict(self._listed(run_id, directory))
        return [name for name, path in files.items() if arrived.get(f"{directory}/{name}") != path.stat().st_size]

    def register(self, run_id: str, directory: str, digest: str) -> ModelVersion:
        """Make the artifacts of a run the next version of the model, which is made where there is none."""
        from mlflow.exceptions import MlflowException

        with self._asking():
            try:
                self._client.create_registered_model(self.name)
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
            source = f"{self._client.get_run(run_id).info.artifact_uri}/{directory}"
            made = self._client.create_model_version(self.name, source, run_id, tags={_DIGEST: digest})
        return self._version(made)

    def _end(self, run_id: str, status: str) -> None:
        # It prints the server's address, whatever that has in it, to where results go.
        with self._asking(), redirect_stdout(io.StringIO()):
            self._client.set_terminated(run_id, status)

    def _listed(self, run_id: str, directory: str) -> Iterator[tuple[str, int | None]]:
        for found in self._client.list_artifacts(run_id, directory):
            if found.is_dir:
                yield from self._listed(run_id, found.path)
            else:
                yield found.path, found.file_size

    def _version(self, found: Any) -> ModelVersion:
        return ModelVersion(self.name, int(found.version), str(found.run_id))

    @property
    def _beside_database(self) -> str | None:
        """Where files go if MLflow is a file of SQLite, which would have them below this process's directory."""
        kind, _, path = self._server.partition(":///")
        return (Path(path).absolute().parent / "mlruns").as_uri() if kind == "sqlite" else None

    @contextmanager
    def _asking(self) -> Iterator[None]:
        """Turn what MLflow, and whatever client its artifact store has, raises into a StorageError."""
        try:
            yield
        except (KeyboardInterrupt, SystemExit, WmtpError):
            raise
        except ModuleNotFoundError as error:
            raise MissingPackageError(
                f"{SCHEME}{self.name}: this MLflow needs the package {error.name!r}, which is not installed",
                hint=f"install it (python -m pip install {error.name})",
            ) from error
        except BaseException as error:  # noqa: BLE001  clients of databases and of object stores raise every kind
            said = _without_access(str(error).strip().partition("\n")[0], self._server)
            raise StorageError(
                f"{SCHEME}{self.name}: MLflow says {type(error).__name__}: {plain(said)}",
                hint=f"check {_ADDRESS}, and whether its server and artifact store let you write; then push again",
            ) from None  # what it was made of may show a password


def _without_access(text: str, server: str) -> str:
    """Return a message without the name and password that an address may have in it."""
    try:
        parts = urlsplit(server)
        given: tuple[str | None, ...] = (
            parts.netloc.rpartition("@")[0],
            parts.password,
            unquote(parts.password or ""),
            parts.username,
        )
    except ValueError:  # no address at all, and nothing in it can be told from the rest
        given = (server,)
    for secret in filter(None, given):
        text = text.replace(secret, "***")
    return text
