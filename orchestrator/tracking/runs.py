"""What an MLflow run must hold; pure, so that a replay does the same again.

One run per sweep and one per (stage, trial key).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from orchestrator.tracking.events import ArtifactLogged
from orchestrator.tracking.outbox import Entry

SWEEP_STAGE = "sweep"
# mlflow.utils.validation, 3.17: more is an error for the whole batch, not a truncation.
MAX_KEY = 250
MAX_PARAM = 6000
MAX_TAG = 8000
MAX_METRICS = 1000
MAX_PARAMS = 100


class RunKey(NamedTuple):
    """Identity of a run: the three tags it is found by. A sweep's own run has stage ``sweep``."""

    sweep: str
    stage: str
    key: str

    @property
    def parent(self) -> RunKey | None:
        """The run of the sweep, or None for that run itself."""
        if self.stage == SWEEP_STAGE:
            return None
        return RunKey(self.sweep, SWEEP_STAGE, self.sweep)


class Point(NamedTuple):
    """One value of a metric; MLflow keeps points apart by all four fields."""

    name: str
    value: float
    time_ms: int
    step: int


@dataclass
class RunUpdate:
    """What one event, or several of the same run, change in a run.

    Attributes:
        run: Which run.
        entries: The events it comes from.
        name: The run's name, if it is to be created; empty: it must exist already.
        start_ms: When it started, if it is to be created.
        params: Written once; MLflow refuses to change them.
        tags: Written over what is there.
        metrics: Points to add.
        status: The MLflow status to set, or None.
        end_ms: When it ended, with a final status.
        data: The dataset input, for the sweep's run.
        artifacts: Files for the sweep's run.
        ends_orphans: The driver starts or stops here, so no trial of the sweep is running.
    """

    run: RunKey
    entries: tuple[Entry, ...] = ()
    name: str = ""
    start_ms: int = 0
    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    metrics: list[Point] = field(default_factory=list)
    status: str | None = None
    end_ms: int | None = None
    data: Mapping[str, Any] = field(default_factory=dict)
    artifacts: tuple[ArtifactLogged, ...] = ()
    ends_orphans: bool = False


def merge(parts: Iterable[RunUpdate]) -> RunUpdate:
    """Return one update that does what the parts, of one run and in order, do together."""
    first, *rest = parts
    merged = RunUpdate(
        first.run,
        first.entries,
        first.name,
        first.start_ms,
        dict(first.params),
        dict(first.tags),
        list(first.metrics),
        first.status,
        first.end_ms,
        first.data,
        first.artifacts,
        first.ends_orphans,
    )
    for part in rest:
        merged.entries += part.entries
        merged.name = merged.name or part.name
        merged.start_ms = merged.start_ms or part.start_ms
        merged.params = {**part.params, **merged.params}
        merged.tags.update(part.tags)
        merged.metrics += part.metrics
        if part.status is not None:
            merged.status, merged.end_ms = part.status, part.end_ms
        merged.data = part.data or merged.data
        merged.artifacts += part.artifacts
        merged.ends_orphans = merged.ends_orphans or part.ends_orphans
    return merged


def grouped(parts: Iterable[RunUpdate]) -> Iterator[list[RunUpdate]]:
    """Group parts by run, so that a run that lags gets one batch; barriers keep their place."""
    groups: dict[RunKey, list[RunUpdate]] = {}
    for part in parts:
        if part.ends_orphans:
            yield from groups.values()
            groups = {}
            yield [part]
        else:
            groups.setdefault(part.run, []).append(part)
    yield from groups.values()


def flatten(params: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Return dotted names and texts: strings as they are, everything else as JSON."""
    flat: dict[str, str] = {}
    for name, value in params.items():
        if isinstance(value, Mapping) and value:
            flat.update(flatten(value, f"{prefix}{name}."))
        else:
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            flat[f"{prefix}{name}"[:MAX_KEY]] = text[:MAX_PARAM]
    return flat


def batches(
    metrics: Sequence[Point], params: Mapping[str, str], tags: Mapping[str, str]
) -> Iterator[tuple[list[Point], dict[str, str], dict[str, str]]]:
    """Cut into what one log-batch request may carry: 1000 items, 100 of them params or tags."""
    points, left, labels = list(metrics), list(params.items()), list(tags.items())
    while points or left or labels:
        room = MAX_METRICS - min(len(left), MAX_PARAMS) - min(len(labels), MAX_PARAMS)
        yield points[:room], dict(left[:MAX_PARAMS]), dict(labels[:MAX_PARAMS])
        points, left, labels = points[room:], left[MAX_PARAMS:], labels[MAX_PARAMS:]
