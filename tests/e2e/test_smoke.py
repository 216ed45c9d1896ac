"""The smoke preset through the real command line: results, tracking, resuming, dying."""

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator.ledger import open_storage, read_study
from orchestrator.records import Stage, TrialRecord, TrialState
from orchestrator.tracking.events import TrialFinished, TrialReported
from orchestrator.tracking.outbox import Outbox

pytestmark = [
    pytest.mark.ray,
    pytest.mark.slow,
    pytest.mark.timeout(600),
    # MLflow 3.17 uses a loader that SQLAlchemy 2.1 deprecates.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]
PER_EPOCH = {
    *("train_loss", "val_loss", "val_accuracy", "val_f1_macro", "val_f1_micro"),
    *("val_f1_weighted", "epoch_seconds", "train_seconds", "samples_per_second"),
}
PER_RUN = {"parameters", "parameters_trainable", "model_bytes"}
TAGS = {"sweep", "stage", "trial_key", "attempt", "state", "git_sha", "data_digest"}


def events(home: Path, kind: type) -> list[Any]:
    outbox = Outbox(home / "sweeps" / "smoke" / "outbox.jsonl")
    return [entry.event for entry in outbox.read_from() if isinstance(entry.event, kind)]


def trained_epochs(home: Path) -> Counter[tuple[str, str, int]]:
    """Count how often each epoch of each trial was trained, not replayed from the store."""
    return Counter(
        (event.stage, event.key, event.epoch)
        for event in events(home, TrialReported)
        if not event.again
    )


def artifacts(home: Path) -> dict[str, int]:
    """Return every manifest with the time it was written."""
    return {str(p.parent): p.stat().st_mtime_ns for p in (home / "store").rglob("manifest.json")}


def ledger(home: Path) -> list[TrialRecord]:
    state = json.loads((home / "sweeps" / "smoke" / "sweep.json").read_text())
    storage = open_storage(f"sqlite:///{home / 'ledger.db'}")
    return [
        record
        for part, study in state["studies"].items()
        for record in read_study(storage, study, Stage(part.partition("-")[0]))
    ]


def mlflow_runs(home: Path) -> list[Any]:
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{home / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("smoke")
    assert experiment is not None
    return list(client.search_runs([experiment.experiment_id], max_results=1000))


def copied(home: Path, target: Path) -> Path:
    """Copy a home, databases with what their write-ahead logs hold."""
    shutil.copytree(home, target)
    return target


def test_the_report_has_the_shape_others_rely_on(smoke: Any) -> None:
    report = smoke.report
    wanted = {"sweep", "teachers", "controls", "students", "best", "confirm"}
    assert wanted | {"distillation_ratio", "verdict"} <= report.keys()
    assert report["sweep"] == "smoke"
    assert len(report["teachers"]) == 2
    assert {c["role"] for c in report["controls"]} == {
        *("control:plain", "control:best_teacher", "control:average"),
    }
    assert all(
        {"key", "state", "params", "metrics"} <= entry.keys() for entry in report["students"]
    )
    assert {entry["state"] for entry in report["students"]} <= {"complete", "pruned"}
    assert report["best"]["key"] in [entry["key"] for entry in report["students"]]


def test_what_was_run_is_in_the_ledger_once(smoke: Any) -> None:
    records = ledger(smoke.home)
    results = [record for record in records if record.state.is_result()]
    assert all(r.state in {TrialState.COMPLETE, TrialState.PRUNED} for r in results)
    assert len({(record.stage, record.key) for record in results}) == len(results)
    students = [r for r in results if r.stage is Stage.STUDENTS]
    assert sum(not r.role.startswith("control") for r in students) == 4
    for record in results:
        if record.stage in {Stage.TEACHERS, Stage.STUDENTS}:
            epochs = [entry["epoch"] for entry in record.history]
            wanted = record.spec["epochs"] if record.state is TrialState.COMPLETE else len(epochs)
            assert epochs == list(range(1, wanted + 1)), record


def test_only_confirm_has_seen_the_test_split(smoke: Any) -> None:
    for record in ledger(smoke.home):
        tested = any(name.startswith("test_") for name in record.metrics)
        # The teachers answer it in the confirm stage, for the distillation ratio.
        allowed = record.stage is Stage.CONFIRM or record.params.get("split") == "test"
        assert tested is allowed, record
    described = json.dumps([r.spec for r in ledger(smoke.home) if r.stage is Stage.STUDENTS])
    assert '"test"' not in described


def test_mlflow_holds_the_parent_and_every_trial(smoke: Any) -> None:
    runs = mlflow_runs(smoke.home)
    parents = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    assert len(parents) == 1
    children = [run for run in runs if run is not parents[0]]
    assert {run.data.tags["mlflow.parentRunId"] for run in children} == {parents[0].info.run_id}
    assert {run.info.status for run in runs} == {"FINISHED"}
    known = {(r.stage.value, r.key) for r in ledger(smoke.home) if r.state.is_result()}
    tracked = [(run.data.tags["stage"], run.data.tags["trial_key"]) for run in children]
    assert sorted(tracked) == sorted(known)
    for run in children:
        assert run.data.tags.keys() >= TAGS
        if run.data.tags["stage"] == "students":
            assert run.data.metrics.keys() >= PER_EPOCH
            assert run.data.params["model"] == "textcnn"
            if run.data.tags["state"] == "complete":
                assert run.data.metrics.keys() >= PER_RUN
        if run.data.tags["stage"] == "confirm":
            assert run.data.metrics.keys() >= {"test_accuracy", "test_f1_macro"}
    best = next(run for run in children if run.data.tags["stage"] == "students")
    assert best.data.params.keys() >= {"loss", "weighting", "alpha"}


def test_read_only_verbs_print_one_document(smoke: Any, orchestrator: Any) -> None:
    for arguments in (["status"], ["report"], ["ls"], ["sync"]):
        done = orchestrator(*arguments, "--home", smoke.home, "--json")
        assert done.returncode == 0, done.stderr
        json.loads(done.stdout)
    status = json.loads(orchestrator("status", "--home", smoke.home, "--json").stdout)
    assert status["running"] is False
    assert status["undelivered"] == 0
    assert status["failures"] == []


def test_the_same_sweep_again_trains_nothing(smoke: Any, orchestrator: Any, tmp_path: Path) -> None:
    home = copied(smoke.home, tmp_path / "home")
    before, epochs = artifacts(home), trained_epochs(home)
    done = orchestrator("sweep", "smoke", "--home", home, "--cpus", "2", "--json")
    assert done.returncode == 0, done.stderr
    assert "starting Ray" not in done.stderr
    assert artifacts(home) == before
    assert trained_epochs(home) == epochs
    again = json.loads(done.stdout)
    assert again["best"] == smoke.report["best"]
    assert again["confirm"] == smoke.report["confirm"]
    assert {run.info.status for run in mlflow_runs(home)} == {"FINISHED"}
    assert len(mlflow_runs(home)) == len(mlflow_runs(smoke.home))


def test_more_trials_extend_the_sweep(smoke: Any, orchestrator: Any, tmp_path: Path) -> None:
    home = copied(smoke.home, tmp_path / "home")
    before = trained_epochs(home)
    options = ("--trials", "6", "--set", "confirm=null", "--cpus", "2", "--json")
    done = orchestrator("sweep", "smoke", "--home", home, *options)
    assert done.returncode == 0, done.stderr
    after = trained_epochs(home)
    assert set(before.values()) == set(after.values()) == {1}
    assert len({key for _, key, _ in after - before}) == 2
    students = [r for r in ledger(home) if r.stage is Stage.STUDENTS and r.state.is_result()]
    assert sum(not record.role.startswith("control") for record in students) == 6


def test_mlflow_out_of_reach_is_a_warning_and_sync_catches_up(
    smoke: Any, orchestrator: Any, tmp_path: Path
) -> None:
    home = copied(smoke.home, tmp_path / "home")
    blocked = tmp_path / "blocked"
    blocked.write_text("in the way")
    uri = f"tracking.uri=sqlite:///{blocked}/mlflow.db"
    done = orchestrator("sweep", "smoke", "--home", home, "--set", uri, "--json", timeout=300)
    assert done.returncode == 0, done.stderr
    json.loads(done.stdout)
    assert "events have not reached MLflow" in done.stderr
    assert "'orchestrator sync' delivers them" in done.stderr
    assert json.loads(orchestrator("status", "--home", home, "--json").stdout)["undelivered"] > 0
    refused = orchestrator("sync", "--home", home)
    assert refused.returncode == 1
    assert "Traceback" not in refused.stderr
    blocked.unlink()
    blocked.mkdir()
    delivered = orchestrator("sync", "--home", home)
    assert delivered.returncode == 0, delivered.stderr
    assert json.loads(orchestrator("status", "--home", home, "--json").stdout)["undelivered"] == 0


class Started:
    """A sweep in a process group of its own, as a terminal would start it."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.log = home.with_name(f"log-{time.time_ns()}")
        command = [sys.executable, "-m", "orchestrator", "sweep", "smoke", "--home", str(home)]
        command += ["--cpus", "2", "--set", "confirm=null", "--json"]
        with self.log.open("wb") as stream:
            self.process = subprocess.Popen(
                command, stdout=stream, stderr=stream, start_new_session=True
            )

    def wait_until(self, condition: Callable[[], bool], seconds: float = 200) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.05)

    def signal_group(self, number: int) -> int:
        os.killpg(self.process.pid, number)
        return self.process.wait(180)


def rays_of(process: int) -> list[str]:
    """List the command lines of Ray processes that a driver has left behind."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            environment = (entry / "environ").read_bytes()
        except OSError:
            continue
        if f"ORCHESTRATOR_TEST_DRIVER={process}".encode() in environment:
            found.append(command)
    return found


@pytest.fixture
def started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], Started]]:
    runs: list[Started] = []
    monkeypatch.setenv("ORCHESTRATOR_TEST_DRIVER", str(os.getpid()))

    def start() -> Started:
        runs.append(Started(tmp_path / "home"))
        return runs[-1]

    yield start
    for run in runs:
        if run.process.poll() is None:
            run.signal_group(signal.SIGKILL)


def test_a_sweep_survives_ctrl_c_and_a_killed_driver(
    started: Callable[[], Started], tmp_path: Path
) -> None:
    home = tmp_path / "home"
    first = started()
    first.wait_until(lambda: bool(events(home, TrialReported)))
    assert first.signal_group(signal.SIGINT) == 130  # the whole group, as Ctrl-C does
    text = first.log.read_text()
    assert "error: interrupted; everything so far is kept" in text
    assert "Traceback" not in text

    second = started()
    second.wait_until(lambda: any(e.stage is Stage.STUDENTS for e in events(home, TrialReported)))
    second.signal_group(signal.SIGKILL)

    third = started()
    assert third.process.wait(300) == 0, third.log.read_text()
    epochs = trained_epochs(home)
    assert set(epochs.values()) == {1}, epochs
    finished = [(e.stage, e.key) for e in events(home, TrialFinished) if e.state.is_result()]
    assert len(finished) == len(set(finished))
    states = Counter(record.state for record in ledger(home))
    assert states[TrialState.RUNNING] == 0
    assert states[TrialState.FAILED] == 0
    with sqlite3.connect(home / "ledger.db") as connection:
        query = "select count(*) from trials where state in ('RUNNING', 'WAITING')"
        assert connection.execute(query).fetchone() == (0,)
    assert {run.info.status for run in mlflow_runs(home)} == {"FINISHED"}
    deadline = time.monotonic() + 30
    while (left := rays_of(os.getpid())) and time.monotonic() < deadline:
        time.sleep(0.5)
    assert left == []
