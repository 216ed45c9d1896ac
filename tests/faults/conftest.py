"""The bench for faults: real sweeps in processes of their own, real servers, and what they left."""

import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from orchestrator.history import load_record
from orchestrator.home import Home
from orchestrator.records import Stage, TrialRecord, TrialState
from orchestrator.tracking.address import ENVIRONMENT
from orchestrator.tracking.events import TrialReported, TrialStarted
from orchestrator.tracking.outbox import Outbox
from orchestrator.tracking.ui import ui_command

HERE = Path(__file__).parent
DATA = HERE.parents[1] / "search_spaces" / "presets" / "smoke.csv"
NAME = "fault"

# A whole sweep in a few seconds of training: one teacher, a handful of students, no confirmation.
CONFIG: dict[str, Any] = {
    "name": NAME,
    "data": {
        "source": "csv",
        "path": str(DATA),
        "text": "text",
        "label": "label",
        "dev": 80,
        "max_length": 16,
    },
    "teachers": [
        {
            "name": "tiny",
            "model": {"name": "linear", "embedding_dim": 16},
            "tokenizer": {"kind": "word"},
            "epochs": 4,
            "lr": 0.05,
            "batch_size": 16,
        }
    ],
    "student": {
        "model": {"name": "textcnn", "filters": 8, "kernels": [1, 2], "embedding_dim": 16},
        "tokenizer": {"kind": "word"},
        "epochs": 3,
        "batch_size": 80,
        "lr": 0.005,
        "loss": "kd",
    },
    "search": {
        "trials": 4,
        "controls": False,
        "early_stopping": None,
        "space": {"alpha": {"log_uniform": [0.3, 3.0]}},
    },
    "confirm": None,
}


# Ray lets its workers give way to everything else; beside other work a case would take minutes.
PROMPT = {"RAY_worker_niceness": "0"}


@pytest.fixture
def figure(request: pytest.FixtureRequest) -> Callable[..., None]:
    """Print what a test counted: ``figure(trials=7, epochs=21)``."""

    def tell(**values: Any) -> None:
        event = request.node.name.removeprefix("test_").replace("_", " ")
        facts = "  ".join(f"{name.replace('_', ' ')} {value}" for name, value in values.items())
        print(f"\n[fault] {event}: {facts}", flush=True)

    return tell


@dataclass
class Running:
    """A sweep in a process group of its own, as a terminal would start it."""

    process: subprocess.Popen[bytes]
    log: Path

    def text(self) -> str:
        return self.log.read_text(errors="replace")

    def wait_until(self, condition: Callable[[], bool], seconds: float = 400) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert self.process.poll() is None, self.text()
            assert time.monotonic() < deadline, self.text()
            time.sleep(0.05)

    def wait(self, seconds: float = 600) -> int:
        return self.process.wait(seconds)

    def kill(self, number: int = signal.SIGKILL) -> int:
        """Send a signal to the driver alone and wait for its end."""
        self.process.send_signal(number)
        return self.process.wait(180)

    def end(self) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(60)


@dataclass(frozen=True)
class Counts:
    """What a sweep has left, in numbers.

    Attributes:
        trials: Distinct results.
        epochs: Epochs trained, each counted as often as it was.
        twice: Those trained more than once.
        points: Metric points in MLflow.
        doubled: (run, metric, step) with more than one point.
        open: Ledger trials and MLflow runs that are still shown as running.
    """

    trials: int
    epochs: int
    twice: int
    points: int
    doubled: int
    open: int


@dataclass
class Bench:
    """Sweeps over one home, through the real command line.

    Attributes:
        folder: Holds the home, the configs and the logs.
        home: Where the sweeps write.
        environment: Added to that of every process.
        address: A Ray cluster that runs already; None lets each sweep start its own.
    """

    folder: Path
    home: Path
    environment: dict[str, str] = field(default_factory=dict)
    address: str | None = None
    _running: list[Running] = field(default_factory=list)

    def config(self, name: str = NAME, **changes: Any) -> Path:
        """Write a config: ``config(**{"search.trials": 8})`` changes single fields."""
        document = json.loads(json.dumps({**CONFIG, "name": name}))
        for path, value in changes.items():
            *parents, last = path.split(".")
            target = document
            for part in parents:
                target = target[int(part)] if isinstance(target, list) else target[part]
            target[last] = value
        file = self.folder / f"{name}.yaml"
        file.write_text(yaml.safe_dump(document, allow_unicode=True), encoding="utf-8")
        return file

    def teachers(self) -> list[Any]:
        """Return the teachers of an unchanged config."""
        return list(CONFIG["teachers"])

    def command(self, *arguments: str | Path) -> list[str]:
        return [sys.executable, "-m", "orchestrator", *map(str, arguments)]

    def sweep_command(self, config: Path, *arguments: str | Path) -> list[str]:
        address = ("--address", self.address) if self.address else ()
        options = ("--home", self.home, "--cpus", "2", "--json", *address, *arguments)
        return self.command("sweep", config, *options)

    def start(
        self, config: Path, *arguments: str | Path, prefix: tuple[str, ...] = (), **more: str
    ) -> Running:
        """Start a sweep and return at once."""
        log = self.folder / f"log-{len(self._running)}.txt"
        with log.open("wb") as stream:
            process = subprocess.Popen(
                [*prefix, *self.sweep_command(config, *arguments)],
                stdout=stream,
                stderr=stream,
                env=self._environment(more),
                cwd=self.folder,
                start_new_session=True,
            )
        self._running.append(Running(process, log))
        return self._running[-1]

    def sweep(self, config: Path, *arguments: str | Path, code: int = 0, **more: Any) -> str:
        """Run a sweep to its end and return what it printed."""
        running = self.start(config, *arguments, **more)
        assert running.wait() == code, running.text()
        assert "Traceback" not in running.text(), running.text()
        return running.text()

    def call(self, *arguments: str | Path, code: int = 0) -> subprocess.CompletedProcess[str]:
        """Run another verb on the home and check its exit code."""
        done = subprocess.run(
            self.command(*arguments, "--home", self.home),
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
            env=self._environment({}),
            cwd=self.folder,
        )
        assert done.returncode == code, done.stderr
        return done

    def _environment(self, more: Mapping[str, str]) -> dict[str, str]:
        return {**os.environ, **PROMPT, "PYTHONPATH": str(HERE), **self.environment, **more}

    def end(self) -> None:
        for running in self._running:
            running.end()

    def events(self, kind: type, name: str = NAME) -> list[Any]:
        outbox = Outbox(self.home / "sweeps" / name / "outbox.jsonl")
        return [entry.event for entry in outbox.read_from() if isinstance(entry.event, kind)]

    def reported(self, stage: Stage = Stage.STUDENTS, name: str = NAME) -> int:
        """Count the epochs reported so far."""
        return sum(event.stage is stage for event in self.events(TrialReported, name))

    def trained(self, name: str = NAME) -> Counter[tuple[str, str, int]]:
        """Count how often each epoch of each trial was trained, not told again."""
        return Counter(
            (event.stage, event.key, event.epoch)
            for event in self.events(TrialReported, name)
            if not event.again
        )

    def records(self, name: str = NAME) -> list[TrialRecord]:
        return list(load_record(Home(self.home), name).trials)

    def sign_of_life(self, name: str = NAME) -> Callable[[], bool]:
        """Return a condition: a student has reported an epoch after this call."""
        before = self.reported(name=name)
        return lambda: self.reported(name=name) > before

    def results(self, stage: Stage = Stage.STUDENTS, name: str = NAME) -> list[TrialRecord]:
        return [r for r in self.records(name) if r.stage is stage and r.state.is_result()]

    def starts(self, name: str = NAME) -> int:
        return len(self.events(TrialStarted, name))

    def running_runs(self, name: str = NAME) -> int:
        """Count the MLflow runs that are shown as running."""
        return mlflow_points(self.home / "mlflow.db", name)[2]

    def steps(self, metric: str = "val_f1_macro", database: Path | None = None) -> dict[str, Any]:
        """Return the steps of a metric in MLflow for every student, with repetitions."""
        return mlflow_steps(database or self.home / "mlflow.db", NAME, "students", metric)

    def counts(self, name: str = NAME, database: Path | None = None) -> Counts:
        """Count everything; MLflow's numbers come from its database, past its own interface."""
        trained = self.trained(name)
        points, doubled, running = mlflow_points(database or self.home / "mlflow.db", name)
        records = self.records(name)
        return Counts(
            trials=len({(r.stage, r.key) for r in records if r.state.is_result()}),
            epochs=sum(trained.values()),
            twice=sum(count > 1 for count in trained.values()),
            points=points,
            doubled=doubled,
            open=running + sum(r.state is TrialState.RUNNING for r in records),
        )

    def expect_whole(self, students: int, name: str = NAME, database: Path | None = None) -> Counts:
        """Check that a sweep is complete, each thing once, and return the counts."""
        counts = self.counts(name, database)
        results = self.results(name=name)
        assert len(results) == len({r.key for r in results}) == students, results
        assert all(r.state is TrialState.COMPLETE for r in results), results
        assert [len(r.history) for r in results] == [3] * students
        assert (counts.doubled, counts.open) == (0, 0)
        steps = mlflow_steps(database or self.home / "mlflow.db", name, "students", "val_f1_macro")
        assert steps == {r.key: [1, 2, 3] for r in results}
        return counts


def _query(database: Path, text: str, *values: str) -> list[tuple[Any, ...]]:
    if not database.exists():
        return []
    connection = sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=30)
    try:
        return connection.execute(text, values).fetchall()
    finally:
        connection.close()


_RUNS = "select run_uuid from tags where key = 'sweep' and value = ?"


def mlflow_points(database: Path, sweep: str) -> tuple[int, int, int]:
    """Return the metric points of a sweep, the doubled ones, and the runs shown as running."""
    points = _query(
        database,
        f"select count(*) from metrics where run_uuid in ({_RUNS}) group by run_uuid, key, step",
        sweep,
    )
    running = _query(
        database,
        f"select count(*) from runs where status = 'RUNNING' and run_uuid in ({_RUNS})",
        sweep,
    )
    total = sum(count for (count,) in points)
    return total, sum(count > 1 for (count,) in points), running[0][0] if running else 0


def mlflow_steps(database: Path, sweep: str, stage: str, metric: str) -> dict[str, list[int]]:
    """Return the steps of a metric in every run of a stage, by trial key, with repetitions."""
    rows = _query(
        database,
        "select k.value, m.step from metrics m"
        " join tags k on k.run_uuid = m.run_uuid and k.key = 'trial_key'"
        " join tags s on s.run_uuid = m.run_uuid and s.key = 'stage' and s.value = ?"
        f" where m.key = ? and m.run_uuid in ({_RUNS}) order by m.step",
        *(stage, metric, sweep),
    )
    steps: dict[str, list[int]] = {}
    for key, step in rows:
        steps.setdefault(key, []).append(step)
    return steps


@pytest.fixture(scope="session")
def ray_token(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Give all processes one token, which Ray reads once in each and then keeps."""
    token = tmp_path_factory.mktemp("token") / "token"
    token.write_text("0123456789abcdef" * 4)
    token.chmod(0o600)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_TOKEN_PATH", str(token))
        yield


@pytest.fixture(scope="session")
def ray_address(ray_token: None) -> Iterator[str]:
    """Start a Ray cluster for all cases that are not about Ray's own processes."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in PROMPT.items():
            patch.setenv(name, value)
        from ray.cluster_utils import Cluster

        node = {"num_cpus": 2, "include_dashboard": False, "object_store_memory": 200 * 2**20}
        cluster = Cluster(initialize_head=True, head_node_args=node)
    yield cluster.address
    cluster.shutdown()


@pytest.fixture
def shared_ray(request: pytest.FixtureRequest, ray_address: str) -> None:
    """Let the test's sweeps run on that cluster, which saves them a start of Ray each."""
    for name in {"bench", "fresh"} & set(request.fixturenames):
        request.getfixturevalue(name).address = ray_address


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train the teacher once, in a sweep of another name; returns the home."""
    folder = tmp_path_factory.mktemp("prepared")
    bench = Bench(folder, folder / "home")
    try:
        bench.sweep(bench.config("prepare", **{"search.trials": 1}))
    finally:
        bench.end()
    return bench.home


@pytest.fixture(scope="session")
def make_bench(prepared: Path) -> Iterator[Callable[..., Bench]]:
    """Make benches: ``make_bench(folder)``, or ``make_bench(folder, empty=True)``.

    Unless it is to be empty, the store holds the teacher and its outputs already.
    """
    made: list[Bench] = []

    def make(folder: Path, *, empty: bool = False) -> Bench:
        made.append(Bench(folder, folder / "home"))
        if not empty:
            shutil.copytree(prepared / "store", made[-1].home / "store")
        return made[-1]

    yield make
    for bench in made:
        bench.end()


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[Bench]:
    """A bench over an empty home."""
    made = Bench(tmp_path, tmp_path / "home")
    yield made
    made.end()


@pytest.fixture
def bench(make_bench: Callable[..., Bench], tmp_path: Path) -> Iterator[Bench]:
    """A bench over a home whose store holds the teacher and its outputs already."""
    made = make_bench(tmp_path)
    yield made
    made.end()


class Server:
    """An MLflow server over an SQLite file of its own; its data survives its death."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.database = folder / "mlflow.db"
        self.port = free_port()
        self.uri = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.folder.mkdir(exist_ok=True)
        self._process = subprocess.Popen(
            ui_command(self.folder, port=self.port),
            env={**os.environ, **ENVIRONMENT},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        deadline = time.monotonic() + 300
        while not self._healthy():
            assert self._process.poll() is None, "the server ended by itself"
            assert time.monotonic() < deadline, "the server did not come up"
            time.sleep(0.2)

    def kill(self) -> None:
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def _healthy(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.uri}/health", timeout=2) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A server that is not started yet."""
    made = Server(tmp_path / "server")
    yield made
    made.kill()
