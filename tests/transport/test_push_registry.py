"""Pushing into MLflow's model registry: its own client, and a file of SQLite as its database."""

import json
import shutil
from pathlib import Path

import pytest

from wmtp.checkpoint.contents import open_checkpoint
from wmtp.comparison.deep import verify_bytes
from wmtp.errors import IntegrityError, MissingPackageError, StorageError, URIError
from wmtp.transport.push_registry import push_to_registry


@pytest.fixture
def database(tmp_path, monkeypatch):
    """Where MLflow keeps runs and models."""
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")


@pytest.fixture
def client(database):
    mlflow = pytest.importorskip("mlflow", reason="not installed: wmtp[tracking]")
    return mlflow.MlflowClient()


def files_of(directory):
    return {p.relative_to(directory).as_posix(): p.read_bytes() for p in Path(directory).rglob("*") if p.is_file()}


@pytest.mark.usefixtures("database")
@pytest.mark.parametrize("address", ["models:/", "models:/name/3", "models:/name@best", "models:/it's"])
def test_an_address_that_is_no_name_of_a_model_is_refused(model, address):
    with pytest.raises(URIError, match="no name of a model") as caught:
        push_to_registry(model, address)
    assert caught.value.hint.startswith("write models:/NAME")


def test_without_the_address_of_a_registry_there_is_none(model, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(StorageError, match="models:/ours: MLFLOW_TRACKING_URI is not set"):
        push_to_registry(model, "models:/ours")


@pytest.mark.slow
def test_a_checkpoint_becomes_a_version_and_comes_back_whole(model, client, tmp_path):
    import mlflow

    report = push_to_registry(model, "models:/ours")
    version = client.get_model_version("ours", "1")
    assert (report.uri, report.version, report.run_id) == ("models:/ours/1", 1, version.run_id)
    assert report.summary()[0].startswith(f"{model} is now models:/ours/1: 4 files, ")
    assert client.get_run(version.run_id).info.status == "FINISHED"
    back = mlflow.artifacts.download_artifacts("models:/ours/1", dst_path=str(tmp_path / "back"))
    found = files_of(back)
    assert {name: found[name] for name in files_of(model)} == files_of(model)
    assert "2 files have the digests that manifest.json gives" in verify_bytes(open_checkpoint(back))


@pytest.mark.slow
def test_the_same_is_pushed_once_and_something_else_is_the_next_version(model, client):
    push_to_registry(model, "models:/ours")
    again = push_to_registry(model, "models:/ours")
    assert again.summary()[0].startswith(f"{model} was models:/ours/1 already: ")
    (model / "README.md").write_text("another\n")
    assert push_to_registry(model, "models:/ours").version == 2
    assert len(client.search_model_versions("name = 'ours'")) == 2


@pytest.mark.slow
def test_the_final_checkpoint_of_a_run_becomes_artifacts_of_that_run(model, client, tmp_path):
    run_id = client.create_run(client.create_experiment("tries", (tmp_path / "mlruns").as_uri())).info.run_id
    run = tmp_path / "runs" / "first"
    shutil.copytree(model, run / "final")
    (run / "run.json").write_text("{}")
    (run / "trackers.json").write_text(json.dumps({"mlflow": run_id}))
    report = push_to_registry(run, "models:/ours")
    assert report.run_id == run_id
    (directory,) = client.list_artifacts(run_id)
    assert f"artifacts/{directory.path}" in client.get_model_version("ours", "1").source
    (run / "trackers.json").write_text(json.dumps({"mlflow": "0" * 32}))
    shutil.copyfile(run / "run.json", run / "final" / "notes.json")
    assert push_to_registry(run, "models:/ours").run_id not in (run_id, "0" * 32)


@pytest.mark.slow
def test_what_does_not_prove_itself_makes_no_model(model, client):
    push_to_registry(model, "models:/ours")
    (model / "manifest.json").write_bytes(files_of_version(client)["manifest.json"])
    (model / "config.json").write_bytes((model / "config.json").read_bytes() + b" ")
    with pytest.raises(IntegrityError):
        push_to_registry(model, "models:/other")
    assert [each.name for each in client.search_registered_models()] == ["ours"]


def files_of_version(client):
    import mlflow

    return files_of(mlflow.artifacts.download_artifacts("models:/ours/1"))


@pytest.mark.slow
def test_a_version_whose_files_are_gone_is_not_taken_for_what_is_pushed(model, client, tmp_path):
    first = push_to_registry(model, "models:/ours")
    (lost,) = (tmp_path / "mlruns").rglob("model.safetensors")
    lost.unlink()
    again = push_to_registry(model, "models:/ours")
    assert (first.version, again.version, again.files[0].was_here) == (1, 2, False)
    assert push_to_registry(model, "models:/ours").version == 2
    client.delete_run(again.run_id)


@pytest.mark.slow
def test_a_run_that_was_deleted_keeps_no_checkpoint(model, client, tmp_path):
    run_id = client.create_run(client.create_experiment("tries", (tmp_path / "mlruns").as_uri())).info.run_id
    client.delete_run(run_id)
    run = tmp_path / "runs" / "first"
    shutil.copytree(model, run / "final")
    (run / "run.json").write_text("{}")
    for known in (run_id, "no such id"):
        (run / "trackers.json").write_text(json.dumps({"mlflow": known}))
        assert push_to_registry(run, "models:/ours").run_id != known


@pytest.mark.slow
@pytest.mark.parametrize("address", ["http://me:geheim1@127.0.0.1:9", "foo://me:geheim1@h/x", "sqlite:/bad"])
def test_an_address_that_leads_nowhere_is_refused_and_its_password_is_not_shown(model, client, monkeypatch, address):
    del client
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(StorageError, match="models:/ours: MLflow says ") as caught:
        push_to_registry(model, "models:/ours")
    assert "geheim" not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.slow
def test_a_package_that_mlflow_lacks_is_named(model, client, monkeypatch):
    del client
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql://me:geheim1@h/x")
    with pytest.raises(MissingPackageError, match="this MLflow needs the package 'psycopg") as caught:
        push_to_registry(model, "models:/ours")
    assert caught.value.hint.startswith("install it (python -m pip install psycopg")
