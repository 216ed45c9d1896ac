"""Whole sweeps on real headlines: how busy the slots are, and ours against two that users write."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest

from orchestrator.history import load_record
from orchestrator.home import Home
from orchestrator.records import Stage

pytestmark = [pytest.mark.bench, pytest.mark.ray, pytest.mark.timeout(3000)]

HERE = Path(__file__).parent
CONFIG = HERE / "headlines.yaml"
SHARED = HERE.parents[2] / "shared"
SLOTS = 2
SHORT = 2
"""Epochs of the students that are compared: the live teachers take minutes even for these."""

ROOM = 0.2
"""What a busy machine may take from a ratio of wall times before it counts as a failure."""

Run = Callable[..., Any]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, orchestrator: Run) -> Home:
    """A home in which the teachers of the headlines have been trained and asked."""
    for needed in ("data/thucnews_headlines/train.csv", "models/e5-small-zh/model.safetensors"):
        if not (SHARED / needed).is_file():
            pytest.skip(f"needs {needed} in ../shared")
    home = tmp_path_factory.mktemp("whole") / "home"
    _sweep(orchestrator, home, "search.trials=1", "student.epochs=1", "name=prepare")
    return Home(home)


def _sweep(orchestrator: Run, home: Path, *settings: str) -> None:
    overrides = [part for setting in settings for part in ("--set", setting)]
    done = orchestrator(
        "sweep", CONFIG, "--home", home, "--cpus", str(SLOTS), *overrides, timeout=1800
    )
    assert done.returncode == 0, done.stderr


def _students(home: Home, name: str) -> tuple[float, list[dict[str, float]]]:
    """Return the wall time from the first student's start to the last one's end, and metrics."""
    study = optuna.load_study(
        study_name=home.read_state(name)["studies"]["students"], storage=home.ledger_url(None)
    )
    ran = [t for t in study.trials if t.datetime_start and t.datetime_complete]
    first = min(t.datetime_start for t in ran if t.datetime_start)
    last = max(t.datetime_complete for t in ran if t.datetime_complete)
    records = load_record(home, name).of(Stage.STUDENTS)
    return (last - first).total_seconds(), [dict(r.metrics) for r in records if r.metrics]


def _script(name: str, *arguments: object) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", HERE / name, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=1800,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    document: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return document


def test_how_busy_the_slots_are(
    home: Home, orchestrator: Run, record_figures: Callable[..., None]
) -> None:
    _sweep(orchestrator, home.path, "name=busy")
    wall, students = _students(home, "busy")
    work = [metrics["train_seconds"] for metrics in students]
    assert len(work) == 12
    record_figures(
        "slots_busy",
        students=len(work),
        shortest_student_seconds=min(work),
        share=sum(work) / (SLOTS * wall),
        target=">= 0.85 of slots x wall spent training, students of 10 s or more",
    )
    assert sum(work) / (SLOTS * wall) > 0.85 - ROOM


def test_against_sweeps_that_users_write(
    home: Home,
    orchestrator: Run,
    tmp_path: Path,
    record_figures: Callable[..., None],
) -> None:
    _sweep(orchestrator, home.path, "name=short", f"student.epochs={SHORT}")
    wall, students = _students(home, "short")
    outputs = [r.seconds for r in load_record(home, "prepare").of(Stage.OUTPUTS)]
    naive_trials, simple_trials = SLOTS, 6
    simple = _script("simple_sweep.py", CONFIG, home.path, SHORT, simple_trials, SLOTS)
    naive = _script("naive_sweep.py", CONFIG, home.path, SHORT, naive_trials, SLOTS, tmp_path)
    assert naive["errors"] == 0
    ours = wall / len(students)
    record_figures(
        "whole_sweeps",
        seconds_per_trial=ours,
        outputs_seconds_once=sum(outputs) / SLOTS,
        naive_over_ours=naive["wall"] / naive_trials / ours,
        naive_target=">= 20",
        simple_over_ours=simple["wall"] / simple_trials / ours,
        simple_target=">= 2",
        accuracy_ours=max(m["val_accuracy"] for m in students),
        accuracy_naive=max(naive["accuracy"]),
        accuracy_simple=max(simple["accuracy"]),
    )
    assert naive["wall"] / naive_trials / ours > 20 * (1 - ROOM)
    assert simple["wall"] / simple_trials / ours > 2 * (1 - ROOM)
    # The first point is the same student; live teachers answer in batches of other lengths.
    assert abs(students[0]["val_accuracy"] - naive["accuracy"][0]) < 0.03
