"""What is known about past and running sweeps: from the ledger and the store alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import ValidationError

from orchestrator.errors import OrchestratorError
from orchestrator.home import Home
from orchestrator.records import Stage, SweepRecord, TrialRecord
from orchestrator.rows import open_tables, read_records
from orchestrator.schema import SweepConfig

if TYPE_CHECKING:
    from orchestrator.report.document import Report


def load_record(home: Home, name: str) -> SweepRecord:
    """Return everything a report needs to know about a sweep; works without Ray and MLflow.

    Args:
        home: Where the sweep was run.
        name: The sweep; see ``Home.find_sweep``.
    """
    state = home.read_state(name)
    config = load_sweep_config(home, name)
    trials: list[TrialRecord] = []
    if state["studies"]:
        engine = open_tables(home.ledger_url(config.ledger.url_env))
        for part, study in state["studies"].items():
            stage = Stage(part.partition("-")[0])
            try:
                trials.extend(read_records(engine, study, stage))
            except KeyError as error:
                raise OrchestratorError(
                    f"the ledger has no {stage} of sweep {name!r}: it was moved or deleted; start "
                    "the sweep again, which takes finished trials from the store"
                ) from error
    metric, direction = state["objective"]
    return SweepRecord(name, state["config"], tuple(trials), state["data"], (metric, direction))


def load_sweep_config(home: Home, name: str) -> SweepConfig:
    """Return the config a sweep was last started with.

    Raises:
        OrchestratorError: It was written by another version of this project.
    """
    try:
        return SweepConfig.model_validate(home.read_state(name)["config"])
    except (ValidationError, KeyError) as error:
        raise OrchestratorError(
            f"{home.sweep(name) / 'sweep.json'} does not fit this version; start sweep {name!r} "
            "again with its config, which trains nothing twice"
        ) from error


def load_report(home: Home, name: str) -> Report:
    """Return the report of a sweep, finished or not."""
    from orchestrator.report.build import build_report  # SciPy, which status does not need

    return build_report(load_record(home, name), home.store)
