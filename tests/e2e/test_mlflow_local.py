"""Delivery to the SQLite store of a home, without any server."""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from orchestrator.records import Stage, TrialState
from orchestrator.tracking.address import resolve_uri
from orchestrator.tracking.events import (
    ArtifactLogged,
    SweepFinished,
    SweepStarted,
    TrialFinished,
    TrialReported,
    TrialStarted,
)
from orchestrator.tracking.mlflow import connect, delivery
from orchestrator.tracking.outbox import Outbox
from orchestrator.tracking.shipper import ship

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(180),
    # MLflow 3.17 uses a loader that SQLAlchemy 2.1 deprecates.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

S = Stage.STUDENTS


@pytest.fixture(scope="module")
def empty_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with a migrated, empty database: making one takes seconds."""
    home = tmp_path_factory.mktemp("home")
    connect(resolve_uri(home), home)
    return home


@pytest.fixture
def home(empty_home: Path, tmp_path: Path) -> Path:
    target = tmp_path / "home"
    shutil.copytree(empty_home, target)
    return target


def start(home: Path) -> Outbox:
    outbox = Outbox(home / "sweeps" / "news" / "outbox.jsonl")
    outbox.append(SweepStarted("news", time_ms=1))
    for key in "ab":
        outbox.append(TrialStarted(S, key, key, {"loss": "kd"}, time_ms=2))
        outbox.append(TrialReported(S, key, 1, {"val_loss": 0.5}, time_ms=3))
    return outbox


def client_of(home: Path) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(resolve_uri(home))


def ship_in_a_new_process(outbox: Outbox, home: Path, shipped: int) -> None:
    """Ship as the next driver would: MLflow keeps open files and locations per process."""
    code = (
        "import sys; from orchestrator.tracking.mlflow import delivery;"
        "from orchestrator.tracking.outbox import Outbox;"
        "from orchestrator.tracking.shipper import ship;"
        "result = ship(delivery(Outbox(sys.argv[1]), None, sys.argv[2]));"
        "sys.exit(0 if result.shipped == int(sys.argv[3]) else str(result))"
    )
    command = [sys.executable, "-c", code, str(outbox.path), str(home), str(shipped)]
    subprocess.run(command, check=True)


def runs_in(home: Path) -> list[Any]:
    client = client_of(home)
    experiment = client.get_experiment_by_name("orchestrator")
    return list(client.search_runs([experiment.experiment_id]))


def test_a_create_whose_answer_is_lost_leaves_one_run(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    real, calls = MlflowClient.create_run, []

    def slow(self: Any, *args: Any, **kwargs: Any) -> Any:
        run = real(self, *args, **kwargs)
        calls.append(run)
        if len(calls) == 2:
            real(self, *args, **kwargs)  # and the retry of a proxy in between
            raise MlflowException("API request failed with timeout exception")
        return run

    monkeypatch.setattr(MlflowClient, "create_run", slow)
    outbox = start(home)
    work = delivery(outbox, None, home)
    assert "longer than 10 s" in str(ship(work).error)
    assert ship(work).lag == 0
    keys = sorted(run.data.tags["trial_key"] for run in runs_in(home))
    assert keys == ["a", "b", "news"]


def test_running_trials_end_with_the_sweep_and_start_again(home: Path) -> None:
    outbox = start(home)
    ship(delivery(outbox, None, home))
    outbox.append(TrialFinished(S, "a", TrialState.COMPLETE, time_ms=4))
    outbox.append(SweepFinished(TrialState.LOST, time_ms=5))
    ship(delivery(outbox, None, home))
    assert [run.info.status for run in runs_in(home)].count("RUNNING") == 0
    outbox.append(SweepStarted("news", time_ms=6))
    outbox.append(TrialStarted(S, "b", "b", {"loss": "kd"}, time_ms=7))
    ship(delivery(outbox, None, home))
    states = {run.data.tags["trial_key"]: run.info.status for run in runs_in(home)}
    assert states == {"a": "FINISHED", "b": "RUNNING", "news": "RUNNING"}


def test_a_deleted_database_is_filled_again(home: Path) -> None:
    outbox = start(home)
    ship(delivery(outbox, None, home))
    for path in home.glob("mlflow.db*"):
        path.unlink()
    outbox.append(TrialReported(S, "a", 2, {"val_loss": 0.4}, time_ms=8))
    ship_in_a_new_process(outbox, home, shipped=6)


def test_a_moved_home_keeps_its_artifacts(home: Path, tmp_path: Path) -> None:
    outbox = start(home)
    outbox.append(ArtifactLogged("old.txt", text="old"))
    ship(delivery(outbox, None, home))
    outbox.close()
    moved = tmp_path / "elsewhere"
    shutil.copytree(home, moved)
    shutil.rmtree(home)
    outbox = Outbox(moved / "sweeps" / "news" / "outbox.jsonl")
    outbox.append(ArtifactLogged("new.txt", text="new"))
    # Another path is another destination: everything is replayed, and changes nothing.
    ship_in_a_new_process(outbox, moved, shipped=7)
    assert not home.exists()
    (parent,) = [run for run in runs_in(moved) if run.data.tags["stage"] == "sweep"]
    names = [item.path for item in client_of(moved).list_artifacts(parent.info.run_id)]
    assert names == ["new.txt", "old.txt"]


def test_two_processes_may_open_an_empty_store_at_once(tmp_path: Path) -> None:
    code = (
        "import sys; from orchestrator.tracking.mlflow import connect;"
        "connect('sqlite:///' + sys.argv[1] + '/mlflow.db', sys.argv[1])"
    )
    both = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path)]) for _ in range(2)]
    assert [process.wait() for process in both] == [0, 0]


def test_more_params_tags_and_points_than_one_request_takes(home: Path) -> None:
    outbox = Outbox(home / "outbox.jsonl")
    outbox.append(SweepStarted("wide", time_ms=1))
    params = {f"p{n}": n for n in range(250)}
    tags = {f"t{n}": "x" for n in range(150)}
    outbox.append(TrialStarted(S, "a", "a", time_ms=2))
    assert ship(delivery(outbox, None, home)).error is None
    outbox.append(TrialStarted(S, "a", "a", params, tags, time_ms=3))
    for epoch in range(30):
        metrics = {f"m{n}": float(n) for n in range(100)}
        outbox.append(TrialReported(S, "a", epoch, metrics, time_ms=4))
    result = ship(delivery(outbox, None, home))
    assert (result.error, result.rejected) == (None, 0)
    (run,) = [run for run in runs_in(home) if run.data.tags["trial_key"] == "a"]
    assert len(run.data.params) == 250
    assert {f"t{n}" for n in range(150)} <= set(run.data.tags)
    client = client_of(home)
    assert all(len(client.get_metric_history(run.info.run_id, f"m{n}")) == 30 for n in (0, 99))
