"""What is known about past and running sweeps: from the ledger and the store alone."""

from __future__ import annotations

from orchestrator.home import Home
from orchestrator.ledger import open_storage, read_study
from orchestrator.preflight import ledger_url
from orchestrator.records import Stage, SweepRecord, TrialRecord
from orchestrator.report.build import build_report
from orchestrator.report.document import Report
from orchestrator.schema import SweepConfig


def load_record(home: Home, name: str) -> SweepRecord:
    """Return everything a report needs to know about a sweep; works without Ray and MLflow.

    Args:
        home: Where the sweep was run.
        name: The sweep; see ``Home.find_sweep``.
    """
    state = home.read_state(name)
    config = SweepConfig.model_validate(state["config"])
    trials: list[TrialRecord] = []
    if state["studies"]:
        storage = open_storage(ledger_url(config, home))
        for part, study in state["studies"].items():
            trials.extend(read_study(storage, study, Stage(part.partition("-")[0])))
    metric, direction = state["objective"]
    return SweepRecord(name, state["config"], tuple(trials), state["data"], (metric, direction))


def load_report(home: Home, name: str) -> Report:
    """Return the report of a sweep, finished or not."""
    return build_report(load_record(home, name), home.store)
