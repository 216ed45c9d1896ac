"""Reading the ledger's tables: records of trials without taking part in the search.

Optuna's own way builds each trial from six tables and checks the schema each time the database is
opened; what a record needs is in one. Two thousand trials are read in a fraction of a second, and
``status`` need not import Optuna at all.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import sqlalchemy
from sqlalchemy import column, table

from orchestrator.records import Stage, TrialRecord, TrialState

_STUDIES = table("studies", column("study_id"), column("study_name"))
_TRIALS = table("trials", column("trial_id"), column("study_id"), column("number"))
_ATTRIBUTES = table(
    "trial_user_attributes", column("trial_id"), column("key"), column("value_json")
)

Described = Mapping[str, Any]


def open_tables(url: str) -> sqlalchemy.Engine:
    """Connect to the ledger behind ``url`` for reading; nothing is created."""
    return sqlalchemy.create_engine(url, poolclass=sqlalchemy.NullPool)


def attributes(
    engine: sqlalchemy.Engine, study: str
) -> Iterator[tuple[int, Described, Mapping[str, Any] | None]]:
    """Yield number, description and outcome of each trial of a study, oldest first.

    Raises:
        KeyError: There is no such study.
    """
    if not _is_there(engine):
        raise KeyError(study)
    with engine.connect() as connection:
        found = sqlalchemy.select(_STUDIES.c.study_id).where(_STUDIES.c.study_name == study)
        identifier = connection.execute(found).scalar()
        if identifier is None:
            raise KeyError(study)
        query = (
            sqlalchemy.select(_TRIALS.c.number, _ATTRIBUTES.c.key, _ATTRIBUTES.c.value_json)
            .join_from(_TRIALS, _ATTRIBUTES, _ATTRIBUTES.c.trial_id == _TRIALS.c.trial_id)
            .where(_TRIALS.c.study_id == identifier)
            .order_by(_TRIALS.c.number)
        )
        rows = connection.execute(query).all()
    texts: dict[int, dict[str, str]] = {}
    for number, key, text in rows:
        texts.setdefault(number, {})[key] = text
    for number, by_key in texts.items():
        if "trial" in by_key:
            outcome = json.loads(by_key["outcome"]) if "outcome" in by_key else None
            yield number, json.loads(by_key["trial"]), outcome


def _is_there(engine: sqlalchemy.Engine) -> bool:
    """Tell whether there is a ledger: SQLite would make an empty file of one that is not."""
    path = engine.url.database if engine.dialect.name == "sqlite" else None
    if path and not Path(path).exists():
        return False
    return sqlalchemy.inspect(engine).has_table(_STUDIES.name)


def read_records(engine: sqlalchemy.Engine, study: str, stage: Stage) -> list[TrialRecord]:
    """Return the trials of a study, oldest first.

    Raises:
        KeyError: There is no such study.
    """
    return [
        record(stage, described, outcome) for _, described, outcome in attributes(engine, study)
    ]


def state_of(outcome: Mapping[str, Any] | None) -> TrialState:
    """Return the state that a trial with this outcome is in; without one it is running."""
    return TrialState.RUNNING if outcome is None else TrialState(outcome["state"])


def record(stage: Stage, described: Described, outcome: Mapping[str, Any] | None) -> TrialRecord:
    """Make the record of a trial from what the ledger says of it."""
    found = outcome or {}
    return TrialRecord(
        stage=stage,
        key=described["key"],
        state=state_of(outcome),
        role=described["role"],
        params=described["params"],
        metrics=_numbers(found.get("metrics", {})),
        history=tuple(_numbers(entry) for entry in found.get("history", ())),
        group=described["group"],
        seed=described["seed"],
        error=found.get("error"),
        seconds=found.get("seconds", 0.0),
        spec=described["spec"],
    )


def _numbers(metrics: Mapping[str, float | None]) -> dict[str, float]:
    """Leave out what was not finite, see ``Outcome.to_dict``."""
    return {name: value for name, value in metrics.items() if value is not None}
