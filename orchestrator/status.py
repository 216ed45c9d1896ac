"""How far a sweep is: from the ledger, the store and the outbox, also while it runs."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

import filelock

from orchestrator.history import load_record
from orchestrator.home import Home
from orchestrator.records import Stage, TrialState


@dataclass(frozen=True)
class StageStatus:
    """The trials of one stage by state; lost and duplicate ones are bookkeeping, not results."""

    stage: str
    states: dict[str, int]
    best: float | None


@dataclass(frozen=True)
class Failure:
    """A trial that failed: which, why, and the traceback."""

    stage: str
    key: str
    role: str
    error: str


@dataclass(frozen=True)
class Status:
    """How far a sweep is.

    Attributes:
        sweep: Its name.
        running: Whether a driver is at work on it.
        objective: What ``best`` is measured by.
        stages: Counts of each stage that has begun.
        failures: Every failed trial.
        undelivered: Events MLflow has not got yet.
    """

    sweep: str
    running: bool
    objective: str
    stages: tuple[StageStatus, ...]
    failures: tuple[Failure, ...]
    undelivered: int

    def to_json(self) -> dict[str, Any]:
        """Return one JSON document."""
        return asdict(self)


def sweep_status(home: Home, name: str) -> Status:
    """Return how far the sweep is."""
    record = load_record(home, name)
    metric, direction = record.objective
    pick = max if direction == "max" else min
    stages = []
    for stage in Stage:
        trials = record.of(stage)
        scores = [t.metrics[metric] for t in trials if metric in t.metrics]
        if trials:
            states = Counter(str(trial.state) for trial in trials)
            stages.append(StageStatus(stage, dict(states), pick(scores, default=None)))
    failures = [
        Failure(trial.stage, trial.key, trial.role, trial.error or "")
        for trial in record.trials
        if trial.state is TrialState.FAILED
    ]
    return Status(
        sweep=name,
        running=_is_held(home, name),
        objective=metric,
        stages=tuple(stages),
        failures=tuple(failures),
        undelivered=_undelivered(home, name),
    )


def _is_held(home: Home, name: str) -> bool:
    lock = filelock.FileLock(home.sweep(name) / "lock", timeout=0)
    try:
        with lock:
            return False
    except filelock.Timeout:
        return True
    except OSError:
        return False  # a home that only its owner can write: no way to tell


def _undelivered(home: Home, name: str) -> int:
    from orchestrator.interface import delivery_of

    return delivery_of(home, name).lag()
