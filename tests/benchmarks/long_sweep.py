"""A sweep of thousands of trials that take no time: what is left is what the engine costs.

Everything but the training is real: engine, ledger, Tune, outbox, shipper. A trial reports made-up
scores from a real worker process; neither data nor a model is needed.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from ray import cloudpickle

from orchestrator import tuning
from orchestrator.config import load_config
from orchestrator.engine import Engine, Options
from orchestrator.home import Home
from orchestrator.ledger import Proposal
from orchestrator.records import Stage, TrialState
from orchestrator.schema import SweepConfig
from orchestrator.stages import Search
from orchestrator.state import SweepState
from orchestrator.tracking import EventBus
from orchestrator.tracking.events import (
    Event,
    SweepFinished,
    SweepStarted,
    TrialFinished,
    TrialReported,
)
from orchestrator.tracking.mlflow import delivery
from orchestrator.tracking.outbox import Outbox
from orchestrator.tracking.shipper import Shipper
from search_spaces.space import Space
from trainables.store import Store, content_key
from trainables.tune import Trial

EPOCHS = 5
SPACE = Space.parse(
    {
        "loss": {
            "choice": [
                {"name": "kd", "temperature": {"log_uniform": [1, 10]}},
                {
                    "name": "dkd",
                    "temperature": {"log_uniform": [1, 10]},
                    "beta": {"uniform": [1, 8]},
                },
            ]
        },
        "weighting": {"choice": ["average", "confidence", "entropy"]},
        "alpha": {"log_uniform": [0.1, 10]},
        "beta": {"log_uniform": [0.01, 100]},
    }
)
METRICS = ("train_loss", "val_loss", "val_accuracy", "val_f1_micro", "val_f1_weighted")


def describe(point: Mapping[str, Any]) -> Proposal:
    """A student of this point; its description is about as long as a real one's."""
    spec = {"epochs": EPOCHS, "point": dict(point), "teachers": [], "padding": "x" * 1500}
    params = {"alpha": point["alpha"], "beta": point["beta"], "teachers": "one+two"}
    for name in ("loss", "weighting"):
        chosen = {key: value for key, value in point[name].items() if key != "name"}
        params |= {name: point[name]["name"], **{f"{name}.{k}": v for k, v in chosen.items()}}
    return Proposal("student", content_key(dict(point)), "search", spec, params, dict(point))


def scores(key: str) -> Iterator[dict[str, Any]]:
    """Yield the reports of a trial, made up from its key."""
    base = int(key[:8], 16) / 16**8
    for epoch in range(1, EPOCHS + 1):
        value = base * (1 - 0.5**epoch)
        report = {"epoch": epoch, "val_f1_macro": value, "finished": epoch == EPOCHS}
        report |= dict.fromkeys(METRICS, value) | {"epoch_seconds": 0.0, "train_seconds": 0.0}
        if epoch == EPOCHS:
            report["summary"] = {"val_f1_macro": value, "val_accuracy": value, "parameters": 1e5}
        yield report


def instantly(task: str, spec: Mapping[str, Any], store: Store) -> Iterator[dict[str, Any]]:
    """Stand in for ``run_task``."""
    return scores(content_key(spec["point"]))


class Instant(Trial):  # type: ignore[misc]
    """The real adapter over trials that take no time."""

    def _start(self, config: dict[str, Any]) -> None:
        from trainables import tune as adapter

        adapter.run_task = instantly
        super()._start(config)


def resident_mb() -> float:
    """Return the resident memory of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def effort() -> float:
    """Return the seconds that a fixed piece of work takes now: what else the machine does."""
    started = time.perf_counter()
    sum(number * number for number in range(100_000))
    return time.perf_counter() - started


@dataclass
class Course:
    """What was seen while the sweep ran, trial by trial.

    Attributes:
        ends: Moments at which trials ended.
        cpu: Processor seconds of the driver at these moments.
        memory: Its resident megabytes, every tenth trial: (trials, megabytes).
        efforts: Seconds of a fixed piece of work, at the same trials.
    """

    ends: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    memory: list[tuple[int, float]] = field(default_factory=list)
    efforts: list[tuple[int, float]] = field(default_factory=list)
    epochs: int = 0

    def observe(self, event: Event) -> None:
        """Take notes of an event."""
        if isinstance(event, TrialReported):
            self.epochs += 1
        elif isinstance(event, TrialFinished):
            self.ends.append(time.perf_counter())
            self.cpu.append(time.process_time())
            if len(self.ends) % 10 == 0:
                self.memory.append((len(self.ends), resident_mb()))
                self.efforts.append((len(self.ends), effort()))

    def per_trial(self, values: list[float], first: int, last: int) -> float:
        """Return how much one of the trials ``first`` to ``last`` took of a running total."""
        return (values[last - 1] - values[first - 1]) / (last - first)

    def effort(self, first: int, last: int) -> float:
        """Return the mean effort while these trials ran."""
        found = [seconds for trial, seconds in self.efforts if first <= trial <= last]
        return sum(found) / len(found)

    def growth(self, first: int, last: int) -> float:
        """Return the megabytes gained per 1,000 trials, by a straight line through all values."""
        points = [(trial, mb) for trial, mb in self.memory if first <= trial <= last]
        middle = sum(trial for trial, _ in points) / len(points)
        spread = sum((trial - middle) ** 2 for trial, _ in points)
        return 1000 * sum((trial - middle) * mb for trial, mb in points) / spread


def run_long_sweep(
    home: Home, trials: int, slots: int, tracking: str | None, patch: pytest.MonkeyPatch
) -> tuple[SweepConfig, Course]:
    """Run a search of instant trials through the real engine and ship it all to MLflow."""
    settings = [f"search.trials={trials}", "search.early_stopping=null", "name=long"]
    config = load_config("smoke", [*settings, f"tracking.uri={tracking or 'null'}"])
    state = SweepState(config, home)
    state.data = FACTS
    course = Course()
    home.sweep(config.name).mkdir(parents=True)
    outbox = Outbox(home.outbox(config.name))
    bus = EventBus([outbox.append, course.observe])
    shipper = Shipper(delivery(outbox, config.tracking.uri, home.path, experiment=config.name))
    shipper.start()
    bus.emit(SweepStarted(config.name))
    module = sys.modules[__name__]
    cloudpickle.register_pickle_by_value(module)
    patch.setattr(tuning, "Trial", Instant)
    engine = Engine(config, home, state, bus, Options(cpus=slots))
    try:
        engine.run(
            Stage.STUDENTS,
            [],
            config.resources.student,
            identity="long",
            search=Search(SPACE, describe, trials),
        )
        bus.emit(SweepFinished(TrialState.COMPLETE))
        assert shipper.drain(900) == 0, shipper.last_error
    finally:
        cloudpickle.unregister_pickle_by_value(module)
        engine.close()
        shipper.stop()
        outbox.close()
    return config, course


FACTS: dict[str, Any] = {
    "classes": ["bad", "good"],
    "rows": {"train": 100, "dev": 50},
    "class_counts": {"train": [50, 50], "dev": [25, 25]},
    "digest": "0" * 64,
    "majority": 0.5,
    "tfidf": {},
    "notes": [],
}


def fill(url: str, trials: int) -> None:
    """Multiply the trials of a ledger with one study; by the front door it would take hours."""
    engine = sqlalchemy.create_engine(url)
    tables = sqlalchemy.MetaData()
    tables.reflect(engine)
    copied = [tables.tables[name] for name in ("trials", "trial_params", "trial_values")]
    attributes = tables.tables["trial_user_attributes"]
    with engine.begin() as connection:
        own = {
            table.name: [dict(row) for row in connection.execute(table.select()).mappings()]
            for table in (*copied, attributes)
        }
        there = len(own["trials"])
        for start in range(there, trials, there):
            for table in copied:
                connection.execute(table.insert(), [_moved(row, start) for row in own[table.name]])
            rows = [_moved(row, start) for row in own["trial_user_attributes"]]
            for row in rows:
                if row["key"] == "trial":
                    described = json.loads(row["value_json"])
                    described["key"] = content_key([described["key"], start])
                    row["value_json"] = json.dumps(described)
            connection.execute(attributes.insert(), rows)
    engine.dispose()


def _moved(row: dict[str, Any], start: int) -> dict[str, Any]:
    """Return a row as that of another trial, with a key of the database's choice."""
    moved = {name: value for name, value in row.items() if not name.endswith("_id")}
    moved["trial_id"] = row["trial_id"] + start
    if "study_id" in row:
        moved |= {"study_id": row["study_id"], "number": row["number"] + start}
    if "objective" in row:
        moved["value"] = row["value"] * (1 - 1e-5 * start)
    return moved
