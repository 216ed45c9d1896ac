"""Other people's tools on a finished sweep: optuna-dashboard, MLflow's search, pandas."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from orchestrator.tracking.address import resolve_uri

pytestmark = [
    pytest.mark.ray,
    pytest.mark.slow,
    pytest.mark.timeout(600),
    # MLflow 3.17 uses a loader that SQLAlchemy 2.1 deprecates.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]


def of_stage(smoke: Any, stage: str) -> list[Any]:
    """Return the runs of a stage as MLflow's own search finds them."""
    return found(smoke, f"tags.sweep = 'smoke' and tags.stage = '{stage}'")


def found(smoke: Any, wanted: str, **more: Any) -> list[Any]:
    from mlflow import MlflowClient

    client = MlflowClient(resolve_uri(smoke.home))
    experiment = client.get_experiment_by_name("smoke")
    assert experiment is not None
    return list(client.search_runs([experiment.experiment_id], wanted, max_results=200, **more))


def test_runs_are_found_by_tag(smoke: Any) -> None:
    (parent,) = of_stage(smoke, "sweep")
    assert {run.data.tags["trial_key"] for run in of_stage(smoke, "students")} == {
        row["key"] for row in [*smoke.report["students"], *smoke.report["controls"]]
    }
    key = smoke.report["best"]["key"]
    (best,) = found(smoke, f"tags.trial_key = '{key}' and tags.stage = 'students'")
    assert best.data.tags["mlflow.parentRunId"] == parent.info.run_id
    children = found(smoke, f"tags.mlflow.parentRunId = '{parent.info.run_id}'")
    assert {run.data.tags["stage"] for run in children} == {
        *("teachers", "outputs", "students", "confirm"),
    }


def test_runs_are_found_by_param(smoke: Any) -> None:
    rows = [*smoke.report["students"], *smoke.report["controls"]]
    wanted = {row["key"] for row in rows if row["params"].get("loss") == "kd"}
    runs = found(smoke, "params.loss = 'kd' and tags.stage = 'students'")
    assert wanted and {run.data.tags["trial_key"] for run in runs} == wanted


def test_the_best_is_found_by_its_score(smoke: Any) -> None:
    rows = [*smoke.report["students"], *smoke.report["controls"]]
    scores = {row["key"]: row["metrics"]["val_f1_macro"] for row in rows if row["rank"]}
    first, *_ = found(
        smoke,
        "tags.stage = 'students' and tags.state = 'complete'",
        order_by=["metrics.kept_val_f1_macro DESC"],
    )
    assert scores[first.data.tags["trial_key"]] == max(scores.values())


def test_the_sweep_s_run_names_its_data(smoke: Any) -> None:
    (parent,) = of_stage(smoke, "sweep")
    (given,) = parent.inputs.dataset_inputs
    assert given.dataset.name == "smoke.csv"
    assert parent.data.tags["data_digest"].startswith(given.dataset.digest)
    assert json.loads(given.dataset.profile)["rows"] == sum(smoke.report["data"]["rows"].values())


def test_csv_and_json_load_into_pandas(smoke: Any, orchestrator: Callable[..., Any]) -> None:
    texts = {
        kind: orchestrator("report", "smoke", "--home", smoke.home, "--format", kind).stdout
        for kind in ("csv", "json")
    }
    table = pd.read_csv(io.StringIO(texts["csv"])).set_index("key")
    nested = json.loads(texts["json"])
    students = pd.json_normalize([*nested["students"], *nested["controls"]]).set_index("key")
    assert set(table.index) == set(students.index)
    for column in ("metrics.val_f1_macro", "metrics.parameters", "params.alpha", "rank"):
        assert table[column].dtype.kind in "if", column
        left, right = table[column].sort_index(), students[column].sort_index()
        pd.testing.assert_series_equal(left, right.astype(left.dtype), check_names=False)
    assert table["pareto"].dtype == bool


@pytest.fixture(scope="module")
def dashboard(smoke: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """``optuna-dashboard`` on a copy of the ledger, because it may write to what it opens."""
    pytest.importorskip("optuna_dashboard", reason="needs optuna-dashboard")
    folder = tmp_path_factory.mktemp("dashboard")
    for file in smoke.home.glob("ledger.db*"):
        shutil.copy(file, folder)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    program = Path(sys.executable).with_name("optuna-dashboard")
    command = [program, f"sqlite:///{folder / 'ledger.db'}", "--port", str(port)]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [*command, "--host", "127.0.0.1"], start_new_session=True, stdout=log, stderr=log
        )
    url = f"http://127.0.0.1:{port}"
    try:
        wait_for(f"{url}/api/studies", process, folder / "log")
        yield url
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(timeout=30)


def wait_for(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline and process.poll() is None:
        try:
            urllib.request.urlopen(url, timeout=10).close()
            return
        except (urllib.error.URLError, TimeoutError):
            time.sleep(0.5)
    pytest.fail(log.read_text())


def ask(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=60) as answer:
        return json.load(answer)


def students_study(smoke: Any, url: str) -> dict[str, Any]:
    state = json.loads((smoke.home / "sweeps" / "smoke" / "sweep.json").read_bytes())
    studies = {study["study_name"]: study for study in ask(f"{url}/api/studies")["study_summaries"]}
    assert set(state["studies"].values()) <= studies.keys()
    return dict(studies[state["studies"]["students"]])


def test_the_dashboard_lists_the_trials(smoke: Any, dashboard: str) -> None:
    study = students_study(smoke, dashboard)
    detail = ask(f"{dashboard}/api/studies/{study['study_id']}?after=0")
    complete = [trial for trial in detail["trials"] if trial["state"] == "Complete"]
    rows = [*smoke.report["students"], *smoke.report["controls"]]
    scores = sorted(row["metrics"]["val_f1_macro"] for row in rows if row["state"] == "complete")
    assert sorted(trial["values"][0] for trial in complete) == pytest.approx(scores)
    assert sum(trial["state"] == "Pruned" for trial in detail["trials"]) == len(rows) - len(scores)


@pytest.mark.browser
def test_the_dashboard_s_page_shows_the_trials(smoke: Any, dashboard: str) -> None:
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium on this machine (Debian: apt-get install chromium)")
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    study = students_study(smoke, dashboard)
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1400, "height": 1000})
        page.set_default_timeout(120_000)
        page.goto(f"{dashboard}/dashboard", wait_until="domcontentloaded")
        page.get_by_text(study["study_name"]).first.wait_for()
        page.goto(
            f"{dashboard}/dashboard/studies/{study['study_id']}/trials",
            wait_until="domcontentloaded",
        )
        page.get_by_text("Complete").first.wait_for()
        shown = page.inner_text("body")
        browser.close()
    assert "Trial 0" in shown
    assert "control:plain" in shown or "alpha" in shown
