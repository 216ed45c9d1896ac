"""The cost of a trial does not grow: thousands of trials that take no time, everything else real.

One sweep of 2,000 trials through engine, ledger, Tune, outbox and a real MLflow server, looked at
while it runs and afterwards. What must stay flat is compared with itself; the machine's other work
is measured at the same moments and divided out, both figures are printed.
"""

from __future__ import annotations

import importlib.util
import io
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from orchestrator.history import load_report
from orchestrator.home import Home
from orchestrator.ledger import Objectives, Outcome, StageLedger, open_storage
from orchestrator.records import Stage, TrialState
from orchestrator.show import render_report
from orchestrator.status import sweep_status
from orchestrator.tracking.address import ENVIRONMENT
from orchestrator.tracking.ui import ui_command

pytestmark = [pytest.mark.bench, pytest.mark.ray]

TRIALS = 2000
SLOTS = 2
EDGE = 200  # trials at the beginning and at the end that are compared
# Processor seconds: on a machine of its own they are the wall's, on a shared one they are ours.
SECONDS = 2.0


def _helper() -> ModuleType:
    """Load the module beside this file; tests are not a package."""
    path = Path(__file__).with_name("long_sweep.py")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[path.stem] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


long_sweep = _helper()


@pytest.fixture(scope="module")
def mlflow_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = subprocess.Popen(
        ui_command(tmp_path_factory.mktemp("mlflow"), port=port),
        env={**os.environ, **ENVIRONMENT},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    deadline = time.monotonic() + 300
    while not _healthy(f"http://127.0.0.1:{port}/health"):
        assert server.poll() is None, "the server ended by itself"
        assert time.monotonic() < deadline, "the server did not come up"
        time.sleep(0.5)
    yield f"http://127.0.0.1:{port}"
    os.killpg(server.pid, signal.SIGKILL)
    server.wait()


def _healthy(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


@dataclass(frozen=True)
class Ran:
    """The sweep that was run: where, what was seen, and the requests MLflow got."""

    home: Home
    course: Any
    requests: Counter[str]


@pytest.fixture(scope="module")
def ran(mlflow_server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ran]:
    from requests.adapters import HTTPAdapter

    sent: Counter[str] = Counter()
    send = HTTPAdapter.send

    def counting(self: HTTPAdapter, request: Any, *args: Any, **kwargs: Any) -> Any:
        if request.url.startswith(mlflow_server):
            sent[request.url.split("?")[0].rsplit("/", 1)[-1]] += 1
        return send(self, request, *args, **kwargs)

    home = Home(tmp_path_factory.mktemp("long") / "home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(HTTPAdapter, "send", counting)
        _, course = long_sweep.run_long_sweep(home, TRIALS, SLOTS, mlflow_server, patch)
    yield Ran(home, course, sent)


@pytest.mark.timeout(3600)
@pytest.mark.filterwarnings("ignore")
def test_time_and_memory_per_trial_stay_flat(ran: Ran, record_figures: Callable[..., None]) -> None:
    course = ran.course
    assert len(course.ends) == TRIALS
    # The first few wait for Ray and for worker processes to start, which happens once.
    first, last = (EDGE // 10, EDGE + EDGE // 10), (TRIALS - EDGE, TRIALS)
    wall = [course.per_trial(course.ends, *edge) for edge in (first, last)]
    cpu = [course.per_trial(course.cpu, *edge) for edge in (first, last)]
    efforts = [course.effort(*edge) for edge in (first, last)]
    ratio = (wall[1] / efforts[1]) / (wall[0] / efforts[0])
    growth = course.growth(EDGE, TRIALS)
    record_figures(
        "flat_cost",
        trials=TRIALS,
        seconds_per_trial=wall,
        wall_ratio=wall[1] / wall[0],
        ratio_with_the_machines_other_work_divided_out=ratio,
        driver_cpu_seconds_per_trial=cpu,
        driver_cpu_ratio=cpu[1] / cpu[0],
        driver_mb_per_1000_trials=growth,
        target="last 200 <= 1.5 x first 200; <= 60 MB per 1,000 trials",
    )
    assert ratio <= 1.5
    assert cpu[1] / cpu[0] <= 1.5
    assert growth <= 60


@pytest.mark.timeout(3600)
@pytest.mark.filterwarnings("ignore")
def test_mlflow_gets_at_most_one_request_per_epoch(
    ran: Ran, record_figures: Callable[..., None]
) -> None:
    requests = sum(ran.requests.values())
    record_figures(
        "mlflow_requests",
        epochs=ran.course.epochs,
        requests=dict(ran.requests),
        requests_per_epoch=requests / ran.course.epochs,
        target="<= 1",
    )
    assert ran.course.epochs == TRIALS * long_sweep.EPOCHS
    assert ran.requests["create"] == TRIALS + 2  # one run per trial, that of the sweep, experiment
    assert requests / ran.course.epochs <= 1


@pytest.mark.timeout(3600)
@pytest.mark.filterwarnings("ignore")
def test_status_and_report_of_thousands_of_trials_take_seconds(
    ran: Ran, record_figures: Callable[..., None], orchestrator: Any
) -> None:
    verbs: dict[str, Callable[[], Any]] = {
        "status": lambda: sweep_status(ran.home, "long"),
        "report": lambda: render_report(load_report(ran.home, "long"), "text"),
        "report_json": lambda: render_report(load_report(ran.home, "long"), "json"),
    }
    cpu, wall = {}, {}
    for name, verb in verbs.items():
        verb()  # imports
        started = time.perf_counter(), time.process_time()
        verb()
        wall[name] = time.perf_counter() - started[0]
        cpu[name] = time.process_time() - started[1]
    whole = {}
    for verb_name in ("status", "report"):
        started = time.perf_counter()
        done = orchestrator(verb_name, "long", "--home", ran.home.path, "--json")
        whole[verb_name] = time.perf_counter() - started
        assert done.returncode == 0, done.stderr
    assert len(json.load(io.StringIO(done.stdout))["students"]) == TRIALS
    record_figures(
        "reading_a_long_sweep",
        cpu_seconds=cpu,
        wall_seconds=wall,
        whole_command=whole,
        target="status, report <= 2 s",
    )
    assert max(cpu["status"], cpu["report"], cpu["report_json"]) <= SECONDS


@pytest.mark.brief
@pytest.mark.timeout(900)
def test_a_suggestion_costs_the_same_after_ten_thousand_trials(
    tmp_path: Path, record_figures: Callable[..., None]
) -> None:
    medians = {}
    for past in (100, 10_000):
        url = f"sqlite:///{tmp_path / f'{past}.db'}"
        ledger = _ledger(url)
        for number in range(100):
            _one(ledger, number / 100)
        long_sweep.fill(url, past)
        ledger = _ledger(url)
        assert ledger.results() == past
        medians[past] = statistics.median(_one(ledger, 0.3) for _ in range(30))
    record_figures(
        "suggestion",
        cpu_seconds_at_100=medians[100],
        cpu_seconds_at_10000=medians[10_000],
        ratio=medians[10_000] / medians[100],
        target="<= 3",
    )
    assert medians[10_000] / medians[100] <= 3


def _ledger(url: str) -> StageLedger:
    objectives = Objectives({"val_f1_macro": "max"})
    return StageLedger(open_storage(url), "long", Stage.STUDENTS, objectives)


def _one(ledger: StageLedger, score: float) -> float:
    """Run a trial through the ledger; returns the processor seconds of the suggestion."""
    started = time.process_time()
    proposal = ledger.suggest(long_sweep.SPACE, long_sweep.describe)
    seconds = time.process_time() - started
    assert proposal is not None
    ledger.report(proposal.number, 1, {"val_f1_macro": score})
    ledger.finish(proposal, Outcome(TrialState.COMPLETE, {"val_f1_macro": score}))
    return seconds
