"""An exported student in the MLflow model registry, ready for ``mlflow models serve``.

The registered model runs ``served.py`` and the exported folder; it needs MLflow, ONNX Runtime and
tokenizers where it is served, and nothing of this project. Only ``MlflowClient`` is used, never
the fluent API with its global active run.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.errors import OrchestratorError
from orchestrator.exporting.folder import CARD, FACTS, holds_student
from orchestrator.tracking.address import (
    ENVIRONMENT,
    artifact_root,
    explain,
    local_lock,
    one_line,
    redacted,
    relocate,
)
from orchestrator.tracking.delivery import Unavailable
from orchestrator.tracking.mlflow import connect
from trainables.store import file_digest

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

CHAMPION, CANDIDATE = "champion", "candidate"

MOST_DESCRIPTION = 5000  # MLflow's database column is no longer
_REQUIREMENTS = ("mlflow", "numpy", "onnxruntime", "pandas", "tokenizers")


@dataclass(frozen=True)
class Registered:
    """A version in the model registry.

    Attributes:
        name: Of the registered model: the sweep's.
        version: Its number.
        alias: ``champion`` or ``candidate``.
        uri: What serves it.
        tracking_uri: Where the registry is.
        new: False if the same files had been registered before.
    """

    name: str
    version: str
    alias: str
    uri: str
    tracking_uri: str
    new: bool


@dataclass(frozen=True)
class Registry:
    """Where to register: the tracking store of a sweep.

    Attributes:
        uri: Of MLflow.
        home: Where a local store keeps its files.
        experiment: The sweep's experiment.
    """

    uri: str
    home: Path
    experiment: str


def register(
    registry: Registry, folder: Path, name: str, *, alias: str, tags: Mapping[str, str]
) -> Registered:
    """Register an exported folder; the same files again only move the alias.

    Args:
        registry: Where.
        folder: Written by ``orchestrator export``.
        name: Of the registered model.
        alias: ``champion`` or ``candidate``.
        tags: Of the version; ``trial_key`` among them finds the run it comes from.

    Raises:
        OrchestratorError: MLflow does not take it.
    """
    content = _content(folder)
    _connect(registry)
    with _explained(registry.uri):
        import mlflow

        client = mlflow.MlflowClient(registry.uri, registry.uri)
        found = _find(client, name, content)
        if found is None:
            _ensure_model(client, name)
            made = _upload(client, registry, folder, name, {**tags, "content": content})
        else:
            made = found
        client.set_registered_model_alias(name, alias, made.version)
        client.update_model_version(name, str(made.version), _description(folder))
    return Registered(
        name=name,
        version=str(made.version),
        alias=alias,
        uri=f"models:/{name}@{alias}",
        tracking_uri=redacted(registry.uri),
        new=found is None,
    )


def fetch(registry: Registry, model: str, folder: Path) -> Path:
    """Return the exported folder of a registered student, downloading it once.

    Args:
        registry: Where it is registered.
        model: ``models:/NAME@ALIAS`` or ``models:/NAME/VERSION``.
        folder: Downloads are kept below it, by name, version and content.

    Raises:
        OrchestratorError: There is no such model, or it is not an exported student.
    """
    _open(registry)
    name, mark, which = model.removeprefix("models:/").partition("@" if "@" in model else "/")
    with _explained(registry.uri):
        import mlflow

        client = mlflow.MlflowClient(registry.uri, registry.uri)
        if mark == "@":
            found = client.get_model_version_by_alias(name, which)
        else:
            found = client.get_model_version(name, which)
        content = found.tags.get("content", "")
        target = folder / f"{name}-{found.version}-{content[:12]}"
        if content and not holds_student(target):
            _download(client.get_model_version_download_uri(name, found.version), target)
    if not holds_student(target):
        raise OrchestratorError(
            f"{model} in {redacted(registry.uri)} is not a student that 'orchestrator export' "
            "registered; name one that is"
        )
    return target


def _download(source: str, target: Path) -> None:
    """Download an MLflow model and keep the exported folder in it."""
    from mlflow.artifacts import download_artifacts

    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        packed = Path(download_artifacts(artifact_uri=source, dst_path=scratch))
        for facts in packed.glob(f"artifacts/*/{FACTS}"):
            facts.parent.rename(target)
            return


def _connect(registry: Registry) -> None:
    """Set the environment before MLflow is imported, and make sure that its store is there."""
    try:
        connect(registry.uri, registry.home, registry.experiment)
    except Unavailable as error:
        raise OrchestratorError(str(error)) from error


def _open(registry: Registry) -> None:
    """Set the environment for reading only: no database and no experiment is made.

    Raises:
        OrchestratorError: The local database is not there.
    """
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    root = artifact_root(registry.uri, registry.home)
    if root is None:
        return
    if not Path(registry.uri.removeprefix("sqlite:///")).is_file():
        raise OrchestratorError(
            f"{registry.uri} does not exist, so nothing is registered there; run "
            "'orchestrator export' first, or name another --home"
        )
    with local_lock(registry.uri):
        relocate(registry.uri, root)


def _upload(
    client: MlflowClient, registry: Registry, folder: Path, name: str, tags: dict[str, str]
) -> ModelVersion:
    experiment = client.get_experiment_by_name(registry.experiment)
    assert experiment is not None, "connect makes it"
    run = _source_run(client, experiment.experiment_id, tags["trial_key"])
    logged = client.create_logged_model(experiment.experiment_id, name, run, dict(tags))
    with tempfile.TemporaryDirectory() as scratch:
        packed = Path(scratch) / "model"
        _pack(packed, folder, logged.model_id, run)
        client.log_model_artifacts(logged.model_id, str(packed))
    client.finalize_logged_model(logged.model_id, "READY")
    # By its place and not as models:/ID, which MLflow looks up in its global tracking store.
    return client.create_model_version(
        name, logged.artifact_location, run, tags, model_id=logged.model_id
    )


def _pack(target: Path, folder: Path, model_id: str, run: str | None) -> None:
    """Write the MLflow model: ``served.py`` as its code, the exported folder as its artifact."""
    import mlflow
    import pandas as pd
    from mlflow.models import Model, ModelSignature
    from mlflow.types.schema import ColSpec, Schema

    signature = ModelSignature(
        inputs=Schema([ColSpec("string", "text")]),
        outputs=Schema([ColSpec("string", "label"), ColSpec("double", "probability")]),
    )
    mlflow.pyfunc.save_model(
        target,
        python_model=str(Path(__file__).with_name("served.py")),
        artifacts={"student": str(folder)},
        signature=signature,
        input_example=pd.DataFrame({"text": ["one text", "another text"]}),
        pip_requirements=[f"{library}=={version(library)}" for library in _REQUIREMENTS],
        mlflow_model=Model(run_id=run, model_id=model_id),
    )


def _source_run(client: MlflowClient, experiment: str, trial: str) -> str | None:
    """Return the run of the trial; None if MLflow has not heard of it."""
    runs = client.search_runs([experiment], f"tags.trial_key = '{trial}'", max_results=1)
    return str(runs[0].info.run_id) if runs else None


def _ensure_model(client: MlflowClient, name: str) -> None:
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _find(client: MlflowClient, name: str, content: str) -> ModelVersion | None:
    """Return the version that holds the same files."""
    for found in client.search_model_versions(f"name = '{name}'"):
        if found.tags.get("content") == content:
            return found
    return None


def _description(folder: Path) -> str:
    """Return as many sections of the model card as MLflow can show with a version."""
    sections = (folder / CARD).read_text(encoding="utf-8").split("\n## ")
    while len("\n## ".join(sections)) > MOST_DESCRIPTION and len(sections) > 1:
        sections.pop()
    return "\n## ".join(sections)[:MOST_DESCRIPTION]


def _content(folder: Path) -> str:
    """Digest everything but the card and the measurements, which differ from run to run."""
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.is_file() and path.name not in (CARD, FACTS):
            digest.update(f"{path.name} {file_digest(path)}\n".encode())
    return digest.hexdigest()


@contextmanager
def _explained(uri: str) -> Iterator[None]:
    """Turn MLflow's errors into one sentence that says what to do."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except MlflowException as error:
        raise OrchestratorError(explain(_status(error), str(error), uri)) from error
    except (SQLAlchemyError, sqlite3.Error) as error:
        raise OrchestratorError(f"{redacted(uri)}: {one_line(str(error))}") from error


def _status(error: Any) -> int:
    return int(error.get_http_status_code())
