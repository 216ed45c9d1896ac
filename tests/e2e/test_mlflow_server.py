"""Delivery to a real MLflow server on loopback, killed and restarted by its process id."""

import os
import signal
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from orchestrator.records import Stage, TrialState
from orchestrator.tracking import EventBus
from orchestrator.tracking.address import ENVIRONMENT
from orchestrator.tracking.events import (
    ArtifactLogged,
    SweepFinished,
    SweepStarted,
    TrialFinished,
    TrialReported,
    TrialStarted,
)
from orchestrator.tracking.mlflow import delivery
from orchestrator.tracking.outbox import Outbox
from orchestrator.tracking.shipper import Shipper, ship
from orchestrator.tracking.ui import ui_command

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(180),
    # MLflow 3.17 uses a loader that SQLAlchemy 2.1 deprecates.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

S = Stage.STUDENTS
METRICS = ("train_loss", "val_loss", "val_accuracy", "val_f1_macro", "epoch_seconds")


class Server:
    """An MLflow server over one SQLite home; survives being killed, as its data does."""

    def __init__(self, home: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.home = home
        self.uri = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._process = subprocess.Popen(
            ui_command(self.home, port=self.port),
            env={**os.environ, **ENVIRONMENT},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        deadline = time.monotonic() + 120
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


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("server"))
    server.start()
    yield server
    server.kill()


@pytest.fixture
def requests_sent(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Count what leaves this process over HTTP, by the last part of its path."""
    from requests.adapters import HTTPAdapter

    sent: Counter[str] = Counter()
    real = HTTPAdapter.send

    def counting(self: HTTPAdapter, request: Any, *args: Any, **kwargs: Any) -> Any:
        sent[request.url.split("?")[0].rsplit("/", 1)[-1]] += 1
        return real(self, request, *args, **kwargs)

    monkeypatch.setattr(HTTPAdapter, "send", counting)
    return sent


def client_of(uri: str) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(uri)


def runs_of(uri: str, sweep: str) -> dict[tuple[str, str], Any]:
    """Return the runs of a sweep by stage and key, after checking that each is there once."""
    client = client_of(uri)
    experiment = client.get_experiment_by_name("orchestrator")
    runs = list(client.search_runs([experiment.experiment_id], f"tags.sweep = '{sweep}'"))
    keyed = {(run.data.tags["stage"], run.data.tags["trial_key"]): run for run in runs}
    assert len(keyed) == len(runs)
    return keyed


def points_of(uri: str, sweep: str) -> dict[tuple[str, str, int], list[float]]:
    client = client_of(uri)
    points: dict[tuple[str, str, int], list[float]] = {}
    for (_, key), run in runs_of(uri, sweep).items():
        for name in run.data.metrics:
            for metric in client.get_metric_history(run.info.run_id, name):
                points.setdefault((key, name, metric.step), []).append(metric.value)
    return points


def play_trial(bus: EventBus, key: str, epochs: range, *, finish: bool = True) -> None:
    bus.emit(TrialStarted(S, key, f"kd {key}", {"loss": {"name": "kd", "temperature": 3.0}}))
    for epoch in epochs:
        bus.emit(TrialReported(S, key, epoch, dict.fromkeys(METRICS, 1.0 / (1 + epoch))))
    if finish:
        bus.emit(TrialFinished(S, key, TrialState.COMPLETE, {"parameters": 9.0}))


def test_schema_parent_children_dataset_and_artifacts(server: Server, tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "outbox.jsonl")
    bus = EventBus([outbox.append])
    (tmp_path / "pareto.txt").write_text("a plot")
    data = {"name": "vader", "digest": "d" * 64, "source": "pypi:vaderSentiment", "rows": 300}
    bus.emit(SweepStarted("schema", {"search": {"trials": 60}}, {"git_sha": "abc"}, data))
    play_trial(bus, "a", range(3))
    bus.emit(TrialStarted(S, "b", "dkd"))
    bus.emit(TrialFinished(S, "b", TrialState.FAILED, error="NonFiniteLoss: epoch 2"))
    bus.emit(ArtifactLogged("report/index.html", text="<h1>report</h1>"))
    bus.emit(ArtifactLogged("plots/pareto.txt", path="pareto.txt"))
    bus.emit(SweepFinished(TrialState.COMPLETE, {"distillation_ratio": 0.8}))
    result = ship(delivery(outbox, server.uri, tmp_path))
    assert (result.lag, result.rejected, result.error) == (0, 0, None)

    runs = runs_of(server.uri, "schema")
    parent, a, b = runs["sweep", "schema"], runs["students", "a"], runs["students", "b"]
    assert len(runs) == 3
    assert parent.data.params == {"search.trials": "60"}
    assert parent.data.metrics == {"distillation_ratio": 0.8}
    assert parent.data.tags["git_sha"] == "abc"
    assert [d.dataset.name for d in parent.inputs.dataset_inputs] == ["vader"]
    assert a.info.run_name == "kd a"
    assert a.data.tags["mlflow.parentRunId"] == b.data.tags["mlflow.parentRunId"]
    assert a.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert a.data.params == {"loss.name": "kd", "loss.temperature": "3.0"}
    assert set(a.data.metrics) == {*METRICS, "parameters"}
    assert (a.info.status, a.data.tags["state"]) == ("FINISHED", "complete")
    assert (b.info.status, b.data.tags["error"]) == ("FAILED", "NonFiniteLoss: epoch 2")
    client = client_of(server.uri)
    for name, content in (("report/index.html", "<h1>report</h1>"), ("plots/pareto.txt", "a plot")):
        local = client.download_artifacts(parent.info.run_id, name, str(tmp_path))
        assert Path(local).read_text() == content


def test_at_most_one_request_per_epoch_report(
    server: Server, tmp_path: Path, requests_sent: Counter[str]
) -> None:
    outbox = Outbox(tmp_path / "outbox.jsonl")
    bus = EventBus([outbox.append])
    shipper = Shipper(delivery(outbox, server.uri, tmp_path), interval=0.02)
    shipper.start()
    bus.emit(SweepStarted("requests"))
    for key in "abcd":
        bus.emit(TrialStarted(S, key, key, {"loss": "kd"}))
    assert shipper.drain(60) == 0
    before = sum(requests_sent.values())
    epochs = 10
    for epoch in range(epochs):  # the worst case: the shipper sees each report by itself
        for key in "abcd":
            bus.emit(TrialReported(S, key, epoch, dict.fromkeys(METRICS, 0.5)))
            assert shipper.drain(60) == 0
    per_report = (sum(requests_sent.values()) - before) / (4 * epochs)
    for key in "abcd":
        bus.emit(TrialFinished(S, key, TrialState.COMPLETE, {"parameters": 1.0}))
    bus.emit(SweepFinished(TrialState.COMPLETE))
    assert shipper.drain(60) == 0
    shipper.stop()
    print(f"requests per epoch report {per_report:.2f}; all {dict(requests_sent)}")
    assert per_report <= 1.0
    assert requests_sent["create"] <= 6  # five runs, and the experiment if it is new
    assert requests_sent["search"] <= 2


def test_a_lagging_shipper_needs_few_requests(
    server: Server, tmp_path: Path, requests_sent: Counter[str]
) -> None:
    outbox = Outbox(tmp_path / "outbox.jsonl")
    bus = EventBus([outbox.append])
    bus.emit(SweepStarted("lagging"))
    for key in "abcdefgh":
        play_trial(bus, key, range(10))
    bus.emit(SweepFinished(TrialState.COMPLETE))
    assert ship(delivery(outbox, server.uri, tmp_path)).lag == 0
    per_epoch = sum(requests_sent.values()) / 80
    print(f"requests per trial epoch when lagging, everything included: {per_epoch:.2f}")
    assert per_epoch <= 0.5


def test_killed_midway_and_replayed_every_point_is_there_once(
    server: Server, tmp_path: Path
) -> None:
    outbox = Outbox(tmp_path / "outbox.jsonl")
    bus = EventBus([outbox.append])
    shipper = Shipper(delivery(outbox, server.uri, tmp_path), interval=0.05)
    shipper.start()
    bus.emit(SweepStarted("killed", {"search": {"trials": 2}}))
    play_trial(bus, "a", range(5))
    play_trial(bus, "b", range(2), finish=False)
    while shipper.lag() > 4:
        time.sleep(0.01)
    server.kill()
    started = time.monotonic()
    play_trial(bus, "c", range(5), finish=False)
    assert time.monotonic() - started < 0.5, "emitting must not wait for the server"
    assert shipper.drain(60) > 0
    assert "is the MLflow server running?" in str(shipper.last_error)
    server.start()
    assert shipper.drain(60) == 0
    shipper.stop(10)

    # The driver died with b and c running; the next one restarts b from its last checkpoint.
    bus.emit(SweepStarted("killed", {"search": {"trials": 9}}))
    play_trial(bus, "b", range(1, 5))
    bus.emit(SweepFinished(TrialState.COMPLETE))
    assert ship(delivery(outbox, server.uri, tmp_path)).lag == 0

    points = points_of(server.uri, "killed")
    expected = {(k, name, e) for k in "abc" for name in METRICS for e in range(5)}
    expected |= {(key, "parameters", 0) for key in "ab"}
    assert set(points) == expected
    assert all(len(values) == 1 for values in points.values())
    runs = runs_of(server.uri, "killed")
    assert {key: run.info.status for (_, key), run in runs.items()} == {
        "killed": "FINISHED",
        "a": "FINISHED",
        "b": "FINISHED",
        "c": "KILLED",
    }
    assert runs["students", "c"].data.tags["state"] == "lost"
    assert runs["students", "b"].data.tags["attempt"] == "2"
    parent = runs["sweep", "killed"]
    assert parent.data.params == {"search.trials": "2"}
    assert parent.data.tags["changed.search.trials"] == "9"

    result = ship(delivery(outbox, server.uri, tmp_path, replay=True))
    assert (result.lag, result.rejected, result.shipped) == (0, 0, outbox.last_seq)
    assert points_of(server.uri, "killed") == points
    again = runs_of(server.uri, "killed")
    assert {key: run.data.params for key, run in again.items()} == {
        key: run.data.params for key, run in runs.items()
    }
    assert {run.info.status for run in again.values()} == {"FINISHED", "KILLED"}
    print(f"{len(points)} points, each once, after a kill, a restart and a full replay")


def test_down_from_the_start_then_delivered(server: Server, tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "outbox.jsonl")
    bus = EventBus([outbox.append])
    bus.emit(SweepStarted("down"))
    play_trial(bus, "a", range(3))
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{unused.getsockname()[1]}"
        result = ship(delivery(outbox, nobody, tmp_path))
    assert result.lag == outbox.last_seq
    assert result.error == f"{nobody} does not answer; is the MLflow server running?"
    assert ship(delivery(outbox, server.uri, tmp_path)).lag == 0
    assert len(points_of(server.uri, "down")) == 3 * len(METRICS) + 1


@pytest.mark.parametrize(
    ("status", "says"),
    [(403, "--allowed-hosts"), (401, "login"), (404, "404"), (500, "internal error")],
)
def test_a_refusing_server_rejects_nothing(tmp_path: Path, status: int, says: str) -> None:
    class Refuse(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(b"go away")

        do_POST = do_GET

        def log_message(self, *_: Any) -> None:
            pass

    web = ThreadingHTTPServer(("127.0.0.1", 0), Refuse)
    threading.Thread(target=web.serve_forever, daemon=True).start()
    outbox = Outbox(tmp_path / "outbox.jsonl")
    EventBus([outbox.append]).emit(SweepStarted("refused"))
    result = ship(delivery(outbox, f"http://127.0.0.1:{web.server_port}", tmp_path))
    web.shutdown()
    web.server_close()
    assert (result.lag, result.rejected) == (1, 0)
    assert says in str(result.error)


def test_what_the_server_will_never_take_is_set_aside(server: Server, tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "outbox.jsonl")
    bus = EventBus([outbox.append])
    bus.emit(SweepStarted("poison"))
    play_trial(bus, "a", range(2), finish=False)
    bus.emit(TrialReported(S, "a", 2, {"not*a*name": 1.0}))
    bus.emit(TrialReported(S, "a", 3, {"val_loss": 0.1}))
    bus.emit(ArtifactLogged("gone.txt", path="gone.txt"))
    result = ship(delivery(outbox, server.uri, tmp_path))
    assert (result.lag, result.rejected, result.error) == (0, 2, None)
    points = points_of(server.uri, "poison")
    assert {step for _, _, step in points} == {0, 1, 3}
    aside = (tmp_path / "outbox.rejected.jsonl").read_text()
    assert "not*a*name" in aside
    assert "does not exist any more" in aside
