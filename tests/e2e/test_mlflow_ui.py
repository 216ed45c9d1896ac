"""What a user sees: the MLflow UI on a finished sweep, opened by `orchestrator ui`, in Chromium."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.browser, pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(900)]

FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--window-size=1600,1000", "--virtual-time-budget=30000", "--dump-dom"),
)


class Ui:
    """A running `orchestrator ui`, asked as a browser and as a client."""

    def __init__(self, url: str, profile: Path) -> None:
        self.url = url
        self._profile = profile

    def call(self, path: str, **body: Any) -> Any:
        request = urllib.request.Request(
            f"{self.url}/api/2.0/mlflow/{path}",
            data=json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)

    def page(self, fragment: str) -> str:
        """Return the page's DOM once it has drawn itself."""
        chromium = shutil.which("chromium") or shutil.which("google-chrome")
        assert chromium is not None
        command = [chromium, *FLAGS, f"--user-data-dir={self._profile}", f"{self.url}/#/{fragment}"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=True)
        return done.stdout


@pytest.fixture(scope="module")
def ui(smoke: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ui]:
    if not (shutil.which("chromium") or shutil.which("google-chrome")):
        pytest.skip("no Chromium on this machine (Debian: apt-get install chromium)")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "orchestrator", "ui", "--home", str(smoke.home)]
    # A group of its own: the UI is a server with workers, and all of them must end.
    process = subprocess.Popen(
        [*command, "--port", str(port)],
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    url = f"http://127.0.0.1:{port}"
    try:
        _wait_for(url, process)
        yield Ui(url, tmp_path_factory.mktemp("chromium"))
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(timeout=30)


def _wait_for(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline:
        assert process.poll() is None, "the UI ended by itself"
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.5)
    raise TimeoutError(f"{url} does not answer")


@pytest.fixture(scope="module")
def experiment(ui: Ui) -> str:
    found = ui.call("experiments/search", max_results=10)["experiments"]
    return str(next(e["experiment_id"] for e in found if e["name"] == "smoke"))


@pytest.fixture(scope="module")
def runs(ui: Ui, experiment: str) -> list[dict[str, Any]]:
    answer = ui.call("runs/search", experiment_ids=[experiment], max_results=200)
    return [_flat(run) for run in answer["runs"]]


def _flat(run: dict[str, Any]) -> dict[str, Any]:
    data = run["data"]
    return {
        "id": run["info"]["run_id"],
        "name": run["info"]["run_name"],
        "status": run["info"]["status"],
        **{
            kind: {entry["key"]: entry["value"] for entry in data.get(kind, [])}
            for kind in ("params", "metrics", "tags")
        },
    }


def test_experiment_page_shows_the_sweep(ui: Ui, experiment: str) -> None:
    page = ui.page(f"experiments/{experiment}/runs")
    assert "smoke.csv" in page
    assert "matching runs" in page


def test_compare_page_shows_params_and_metrics_of_students(
    ui: Ui, experiment: str, runs: list[dict[str, Any]]
) -> None:
    students = [run for run in runs if run["tags"]["stage"] == "students"]
    assert len(students) >= 5
    query = urllib.parse.urlencode(
        {
            "runs": json.dumps([run["id"] for run in students]),
            "experiments": json.dumps([experiment]),
        }
    )
    page = ui.page(f"compare-runs?{query}")
    assert f"Comparing {len(students)} Runs" in page
    assert "control plain" in page
    for column in ("alpha", "weighting", "n_teachers", "val_f1_macro", "parameters"):
        assert column in page, column


def test_runs_hold_what_the_schema_promises(runs: list[dict[str, Any]]) -> None:
    parents = [run for run in runs if run["tags"]["stage"] == "sweep"]
    assert len(parents) == 1
    children = [run for run in runs if run["tags"]["stage"] != "sweep"]
    assert {run["tags"]["stage"] for run in children} == {
        "teachers",
        "outputs",
        "students",
        "confirm",
    }
    assert all(run["status"] == "FINISHED" for run in runs)
    for run in children:
        assert run["tags"]["mlflow.parentRunId"] == parents[0]["id"]
        assert {"sweep", "trial_key", "attempt", "state", "git_sha", "data_digest"} <= set(
            run["tags"]
        )
    per_epoch = {
        *("train_loss", "val_loss", "val_accuracy", "val_f1_macro", "val_f1_micro"),
        *("val_f1_weighted", "epoch_seconds", "train_seconds", "samples_per_second"),
    }
    once = {"parameters", "parameters_trainable", "model_bytes", "teacher_seconds", "gpu_seconds"}
    complete = [
        run
        for run in children
        if run["tags"]["stage"] == "students" and run["tags"]["state"] == "complete"
    ]
    assert complete
    for run in complete:
        assert per_epoch | once <= set(run["metrics"]), run["name"]
        assert {"alpha", "loss", "weighting", "model", "epochs"} <= set(run["params"])
        assert "teacher_keys" in run["tags"]
    confirmed = [r for r in children if r["tags"]["stage"] == "confirm" and "loss" in r["params"]]
    assert all({"test_accuracy", "test_f1_macro"} <= set(r["metrics"]) for r in confirmed)
