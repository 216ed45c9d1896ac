"""MLflow as a destination: the only module of the tracking package that imports it.

Only ``MlflowClient`` is used, never the fluent API with its global active run. MLflow is imported
on the first connection, in the shipper's thread: it takes seconds, and most verbs never need it.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import filelock

from orchestrator.tracking.address import (
    ENVIRONMENT,
    artifact_root,
    explain,
    local_lock,
    one_line,
    redacted,
    relocate,
    resolve_uri,
)
from orchestrator.tracking.delivery import Delivery, Gone, Rejected, Unavailable
from orchestrator.tracking.outbox import Cursor, Outbox
from orchestrator.tracking.runs import MAX_KEY, RunKey, RunUpdate, batches

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

DEFAULT_EXPERIMENT = "orchestrator"
SEARCH_PAGE = 1000

# What the UI itself writes down when a user says that an experiment is about training.
_TRAINING = {"mlflow.experimentKind": "custom_model_development"}

_QUIET = {
    "urllib3.connectionpool": logging.ERROR,
    "alembic": logging.ERROR,
    "mlflow.store.db.utils": logging.CRITICAL,
}

# The database's own words, in a message that also holds a statement and all its values.
_DRIVER_SAYS = re.compile(r"\((?:sqlite3|psycopg\d?(?:\.\w+)*)\.\w+\) ([^\[\n]+)")

_PERMANENT = {"INVALID_PARAMETER_VALUE", "BAD_REQUEST", "RESOURCE_ALREADY_EXISTS"}


def delivery(
    outbox: Outbox,
    uri: str | None,
    home: Path | str,
    *,
    experiment: str | None = None,
    replay: bool = False,
) -> Delivery:
    """Return the delivery of an outbox to MLflow, for ``Shipper`` or ``ship``.

    Args:
        outbox: What to ship; the cursor, lock and rejects lie next to it.
        uri: The tracking URI; None is the home's SQLite database.
        home: Where the local database and its artifacts live.
        experiment: The MLflow experiment; created if it does not exist.
        replay: Send everything again from the first event; changes nothing that is there.
    """
    target = resolve_uri(home, uri)
    name = experiment or DEFAULT_EXPERIMENT
    path = outbox.path.with_name(f"{outbox.path.stem}.cursor.json")
    if replay:
        path.unlink(missing_ok=True)
    cursor = Cursor(path, f"{target}\n{name}")
    return Delivery(outbox, cursor, lambda: connect(target, home, name))


def connect(uri: str, home: Path | str, experiment: str = DEFAULT_EXPERIMENT) -> MlflowRuns:
    """Connect to the tracking store and make sure that the experiment exists.

    Raises:
        Unavailable: The store does not answer, refuses, or cannot be opened.
    """
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    try:
        import mlflow
    except ImportError as error:
        raise Unavailable(f"mlflow cannot be imported ({error}); install it, then sync") from error
    # A server that is down would be reported for each attempt, across the live view; a disk that
    # is full even with its traceback. What was wrong is said once, by the shipper.
    for name, level in _QUIET.items():
        logging.getLogger(name).setLevel(level)
    root = artifact_root(uri, Path(home).absolute())
    with _translated(uri), local_lock(uri):
        client = mlflow.MlflowClient(tracking_uri=uri)
        experiment_id = _experiment_id(client, experiment, root)
        relocate(uri, root)
        return MlflowRuns(client, experiment_id, uri)


@dataclass
class _Known:
    """A run that exists."""

    run_id: str
    running: bool
    params: dict[str, str] | None


class MlflowRuns:
    """The runs of one experiment; a ``delivery.Destination``.

    Args:
        client: Connected client.
        experiment_id: Where runs are made.
        uri: Names the store in messages.
    """

    def __init__(self, client: MlflowClient, experiment_id: str, uri: str) -> None:
        self._client = client
        self._experiment_id = experiment_id
        self._uri = uri
        self._known: dict[RunKey, _Known] = {}
        self._adopted: set[str] = set()
        self._uncertain = False

    def adopt(self, sweep: str) -> bool:
        """Look up all runs of the sweep once; afterwards each is found without a request."""
        if sweep not in self._adopted:
            with _translated(self._uri):
                self._look_up(sweep)
            self._adopted.add(sweep)
        return RunKey(sweep, "sweep", sweep) in self._known

    def end_orphans(self, sweep: str, end_ms: int) -> None:
        """End trials still shown as running: their driver died, or lost them."""
        from mlflow.entities import RunTag

        with _translated(self._uri):
            if self._uncertain:
                self._look_up(sweep)
                self._uncertain = False
            for run, known in self._known.items():
                if run.sweep == sweep and run.parent is not None and known.running:
                    self._client.log_batch(known.run_id, tags=[RunTag("state", "lost")])
                    self._client.set_terminated(known.run_id, "KILLED", end_ms)
                    known.running = False

    def write(self, update: RunUpdate, folder: Path) -> None:
        """Find or create the run and make it hold the update.

        Raises:
            Unavailable: Not now.
            Rejected: The store will never take this update.
            Gone: A run looked up before does not exist any more.
        """
        with _translated(self._uri, writing=True):
            known, created = self._find_or_create(update)
            self._log(known, update, with_tags=not created)
            if update.data:
                self._client.log_inputs(known.run_id, [_dataset(update.data)])
            for artifact in update.artifacts:
                self._log_artifact(
                    known.run_id, artifact.name, artifact.text, artifact.path, folder
                )
            self._set_status(known, update)

    def _look_up(self, sweep: str) -> None:
        token = None
        while True:
            page = self._client.search_runs(
                [self._experiment_id],
                f"tags.sweep = '{sweep}'",
                max_results=SEARCH_PAGE,
                page_token=token,
            )
            for run in page:
                self._remember(run)
            token = page.token
            if not token:
                return

    def _remember(self, run: Run) -> None:
        tags = run.data.tags
        key = RunKey(tags["sweep"], tags.get("stage", ""), tags.get("trial_key", ""))
        found = _Known(run.info.run_id, run.info.status == "RUNNING", dict(run.data.params))
        twin = self._known.get(key)
        if twin is not None and twin.run_id != found.run_id:
            # A create whose answer never came made a run all the same; keep the one with content.
            found, extra = sorted((found, twin), key=lambda one: -len(one.params or {}))
            self._client.delete_run(extra.run_id)
        self._known[key] = found

    def _find_or_create(self, update: RunUpdate) -> tuple[_Known, bool]:
        known = self._known.get(update.run)
        if known is not None:
            return known, False
        if self._uncertain:
            self._look_up(update.run.sweep)
            self._uncertain = False
            if update.run in self._known:
                return self._known[update.run], False
        if not update.name:
            raise Rejected("its run was deleted in MLflow")
        self._uncertain = True
        run = self._client.create_run(
            self._experiment_id,
            start_time=update.start_ms,
            tags=self._tags(update),
            run_name=update.name[:MAX_KEY],
        )
        self._uncertain = False
        known = self._known[update.run] = _Known(run.info.run_id, True, {})
        return known, True

    def _tags(self, update: RunUpdate) -> dict[str, str]:
        tags = dict(update.tags)
        parent = self._known.get(update.run.parent) if update.run.parent else None
        if parent is not None and "attempt" in tags:
            tags["mlflow.parentRunId"] = parent.run_id
        return tags

    def _log(self, known: _Known, update: RunUpdate, *, with_tags: bool) -> None:
        from mlflow.entities import Metric, Param, RunTag

        tags = self._tags(update) if with_tags else {}
        params, changed = self._new_params(known, update.params)
        tags |= changed
        for points, some_params, some_tags in batches(update.metrics, params, tags):
            self._client.log_batch(
                known.run_id,
                [Metric(point.name, point.value, point.time_ms, point.step) for point in points],
                [Param(name, value) for name, value in some_params.items()],
                [RunTag(name, value) for name, value in some_tags.items()],
            )
        if known.params is not None:
            known.params.update(params)

    def _new_params(
        self, known: _Known, params: Mapping[str, str]
    ) -> tuple[dict[str, str], dict[str, str]]:
        """Split params into those not there yet and, as tags, those that have changed since.

        MLflow refuses to change a param, for instance when a sweep continues with more trials.
        """
        if not params:
            return {}, {}
        if known.params is None:
            known.params = dict(self._client.get_run(known.run_id).data.params)
        there = known.params
        new = {name: value for name, value in params.items() if name not in there}
        changed = {
            f"changed.{name}"[:MAX_KEY]: value
            for name, value in params.items()
            if name in there and there[name] != value
        }
        return new, changed

    def _log_artifact(
        self, run_id: str, name: str, text: str | None, path: str | None, folder: Path
    ) -> None:
        if text is not None:
            self._client.log_text(run_id, text, name)
            return
        source = folder / str(path)
        if not source.is_file():
            raise Rejected(f"{source} does not exist any more")
        parent = Path(name).parent.as_posix()
        self._client.log_artifact(run_id, str(source), None if parent == "." else parent)

    def _set_status(self, known: _Known, update: RunUpdate) -> None:
        if update.status is None:
            return
        running = update.status == "RUNNING"
        if not running:
            self._client.set_terminated(known.run_id, update.status, update.end_ms)
            known.params = None  # memory stays flat over thousands of trials
        elif not known.running:
            self._client.update_run(known.run_id, status="RUNNING")
        known.running = running


def _experiment_id(client: MlflowClient, name: str, root: Path | None) -> str:
    """Find or create the experiment; a local one keeps its artifacts below ``root``."""
    from mlflow.exceptions import MlflowException

    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        location = root.as_uri() if root is not None else None
        try:
            return str(client.create_experiment(name, artifact_location=location, tags=_TRAINING))
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            experiment = client.get_experiment_by_name(name)
    if experiment is None or experiment.lifecycle_stage != "active":
        raise Unavailable(
            f"the MLflow experiment {name!r} has been deleted; "
            "restore it in MLflow or set tracking.experiment to another name"
        )
    return str(experiment.experiment_id)


@contextmanager
def _translated(uri: str, *, writing: bool = False) -> Iterator[None]:
    """Turn MLflow's errors into ``Unavailable``, ``Rejected`` or ``Gone``.

    Only an answer to a write can be a rejection: when connecting, a 404 or 400 means that
    something else than MLflow answers, and the events are not to blame.
    """
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except MlflowException as error:
        if writing and error.error_code in _PERMANENT:
            raise Rejected(one_line(str(error))) from error
        if writing and error.error_code == "RESOURCE_DOES_NOT_EXIST":
            raise Gone(f"a run has vanished from {redacted(uri)}") from error
        raise Unavailable(explain(_status(error), _said(error), uri)) from error
    except (SQLAlchemyError, sqlite3.Error, filelock.Timeout, OSError) as error:
        raise Unavailable(f"{redacted(uri)}: {one_line(_said(error))}") from error


def _said(error: Exception) -> str:
    text = str(error)
    found = _DRIVER_SAYS.search(text)
    return found[1].strip() if found else text


def _status(error: Any) -> int:
    return int(error.get_http_status_code())


def _dataset(facts: Mapping[str, Any]) -> Any:
    """Return the dataset input made from ``SweepStarted.data``."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    dataset = Dataset(
        name=str(facts.get("name", "data"))[:500],
        digest=str(facts.get("digest", ""))[:36],  # the database column is no longer
        source_type="local",
        source=json.dumps({"uri": str(facts.get("source", ""))}),
        profile=json.dumps(dict(facts)),
    )
    return DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])
