"""What the ledger is told: what will run, and what became of it. Plain values, no database."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from orchestrator.records import TrialState


@dataclass(frozen=True)
class Proposal:
    """A trial to run.

    Attributes:
        task: The kind of trial and of the artifact it makes.
        key: Key of that artifact.
        role: Why it is run, see ``TrialRecord``.
        spec: What to run, as JSON values.
        params: Flat dotted names and values, for people and for MLflow.
        point: The point of the search space it stands for, or empty.
        group: Key without the seed, in the confirm stage.
        seed: Its seed.
        number: Its number in the study, once it is there.
        retry_of: Number of the trial a dead driver left running, if this is that trial again.
        facts: Once-per-run metrics that are known before it runs.
    """

    task: str
    key: str
    role: str
    spec: Mapping[str, Any]
    params: Mapping[str, Any] = field(default_factory=dict)
    point: Mapping[str, Any] = field(default_factory=dict)
    group: str = ""
    seed: int = 0
    number: int = -1
    retry_of: int | None = None
    facts: Mapping[str, float] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {name: value for name, value in vars(self).items() if name != "number"}


@dataclass(frozen=True)
class Outcome:
    """What became of a trial.

    Attributes:
        state: A finished state.
        metrics: Once-per-run metrics, of the epoch that was kept.
        history: The reports of all epochs.
        error: Reason and traceback of a failure.
        seconds: Wall time.
        cached: Whether it was answered from the store.
        duplicate_of: Number of the earlier trial with the same key.
    """

    state: TrialState
    metrics: Mapping[str, float] = field(default_factory=dict)
    history: Sequence[Mapping[str, float]] = ()
    error: str | None = None
    seconds: float = 0.0
    cached: bool = False
    duplicate_of: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON values; numbers that JSON has no word for become None."""
        values = {**vars(self), "state": str(self.state), "history": list(self.history)}
        cleaned: dict[str, Any] = _finite(values)
        return cleaned


@dataclass(frozen=True)
class Objectives:
    """The metrics a search improves, in order; the first also stops the weak early."""

    directions: Mapping[str, str]

    @property
    def first(self) -> tuple[str, str]:
        """Name and direction (``max`` or ``min``) of the leading objective."""
        return next(iter(self.directions.items()))

    def values(self, metrics: Mapping[str, float]) -> list[float] | None:
        """Return the values in order, or None if one is missing or not finite."""
        values = [metrics.get(name) for name in self.directions]
        if any(value is None or not math.isfinite(value) for value in values):
            return None
        return [float(value) for value in values if value is not None]


def _finite(value: Any) -> Any:
    """Replace NaN and infinities, which PostgreSQL's JSON refuses, by None."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {name: _finite(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(entry) for entry in value]
    return value
