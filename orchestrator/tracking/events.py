"""What happens during a sweep, as frozen records that survive JSON.

Every consumer (outbox, live view, MLflow) sees the same events and nothing else. ``time_ms`` is
the wall clock at the moment it happened: MLflow's metric identity includes it, so an event must
keep its time for ever or a replay would add points.
"""

from __future__ import annotations

import dataclasses
import json
import math
import numbers
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from orchestrator.records import Stage, TrialState


@dataclass(frozen=True)
class Event:
    """Something that happened.

    Attributes:
        time_ms: Milliseconds since 1970; 0 until the bus stamps it.
        durable: The outbox must survive a power cut once this has been appended.
    """

    time_ms: int = field(default=0, kw_only=True)
    durable: ClassVar[bool] = True


@dataclass(frozen=True)
class SweepStarted(Event):
    """A driver took up the sweep: for the first time, or again.

    Attributes:
        name: The sweep.
        params: The config, nested or flat.
        tags: ``git_sha``, ``data_digest`` and the like.
        data: Facts for the dataset input: ``name``, ``digest``, ``source``, ``rows``.
        estimates: Expected wall seconds of each stage that has work left, in running order.
        objective: The metric that ranks trials.
        direction: ``max`` or ``min``.
    """

    name: str
    params: Mapping[str, Any] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    data: Mapping[str, Any] = field(default_factory=dict)
    estimates: Mapping[str, float] = field(default_factory=dict)
    objective: str = "val_f1_macro"
    direction: Literal["max", "min"] = "max"


@dataclass(frozen=True)
class StageStarted(Event):
    """A stage begins.

    Attributes:
        stage: Which.
        total: Trials it needs, those already there included.
        cached: Trials that are already there.
        slots: Trials that may run side by side.
    """

    stage: Stage
    total: int
    cached: int = 0
    slots: int = 1


@dataclass(frozen=True)
class TrialStarted(Event):
    """A trial begins, or begins again after its worker or driver died.

    Attributes:
        stage: Its stage.
        key: Its identity; the same key is the same MLflow run, whatever happens.
        name: For people, e.g. ``kd T=3.1 average bert+bert_cnn``.
        params: Flattened into dotted MLflow params.
        tags: ``data_digest``, ``teacher_keys``, ``role`` and the like.
        epochs: How many it will report at most; 0 if unknown.
    """

    stage: Stage
    key: str
    name: str
    params: Mapping[str, Any] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    epochs: int = 0


@dataclass(frozen=True)
class TrialReported(Event):
    """A trial finished an epoch.

    Attributes:
        stage: Its stage.
        key: Its identity.
        epoch: 1 for the first.
        metrics: What it measured.
        again: Trained before this start and told again, because the driver of that time may have
            died before it heard of it. Where it was heard, this changes nothing.
    """

    durable: ClassVar[bool] = False

    stage: Stage
    key: str
    epoch: int
    metrics: Mapping[str, float]
    again: bool = False


@dataclass(frozen=True)
class TrialFinished(Event):
    """A trial came to its end.

    Attributes:
        stage: Its stage.
        key: Its identity.
        state: What became of it.
        metrics: Measured once per run; per-epoch names hold the epoch that was kept.
        error: The reason and traceback of a failure.
        seconds: Wall time.
    """

    stage: Stage
    key: str
    state: TrialState
    metrics: Mapping[str, float] = field(default_factory=dict)
    error: str | None = None
    seconds: float = 0.0


@dataclass(frozen=True)
class StageFinished(Event):
    """A stage is complete."""

    stage: Stage
    seconds: float = 0.0


@dataclass(frozen=True)
class SweepFinished(Event):
    """The driver is done: ``COMPLETE``, ``FAILED``, or ``LOST`` when it was interrupted."""

    state: TrialState
    metrics: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class ArtifactLogged(Event):
    """A file for the parent run: its text, or the path it can be read from.

    Attributes:
        name: Relative path below the run's artifacts, e.g. ``report/leaderboard.html``.
        text: The content, for small files.
        path: A file; a relative one starts at the outbox's folder, so a home can be moved.
    """

    name: str
    text: str | None = None
    path: str | None = None

    def __post_init__(self) -> None:
        if (self.text is None) == (self.path is None):
            raise ValueError(f"artifact {self.name!r} needs either text or path")


@dataclass(frozen=True)
class Described(Event):
    """The sweep's own run is described, in Markdown; the last description stands."""

    text: str


@dataclass(frozen=True)
class Notice(Event):
    """Something people should read once."""

    durable: ClassVar[bool] = False

    level: Literal["info", "warning", "error"]
    text: str


_TYPES: dict[str, type[Event]] = {
    kind.__name__: kind
    for kind in (
        SweepStarted,
        StageStarted,
        TrialStarted,
        TrialReported,
        TrialFinished,
        StageFinished,
        SweepFinished,
        ArtifactLogged,
        Described,
        Notice,
    )
}


def encode(event: Event, **extra: Any) -> str:
    """Return one line of JSON; non-finite floats become strings, which every reader accepts."""
    fields = {item.name: getattr(event, item.name) for item in dataclasses.fields(event)}
    record = {**extra, "type": type(event).__name__, **fields}
    return json.dumps(_plain(record), ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def decode(record: Mapping[str, Any]) -> Event:
    """Return the event of a parsed line; fields this version does not know are ignored.

    Raises:
        ValueError: Not an event: unknown type, a field is missing or of the wrong kind.
    """
    kind = _TYPES.get(str(record.get("type")))
    if kind is None:
        raise ValueError(f"unknown event type {record.get('type')!r}")
    known = {item.name for item in dataclasses.fields(kind)}
    values = {name: _CONVERT.get(name, _same)(record[name]) for name in known & record.keys()}
    try:
        return kind(**values)
    except TypeError as error:
        raise ValueError(f"incomplete {kind.__name__}: {error}") from error


def _same(value: Any) -> Any:
    return value


def _floats(value: Any) -> dict[str, float]:
    try:
        return {name: float(number) for name, number in value.items()}
    except (AttributeError, TypeError) as error:
        raise ValueError(f"metrics must map names to numbers, got {value!r}") from error


_CONVERT: dict[str, Callable[[Any], Any]] = {
    "stage": Stage,
    "state": TrialState,
    "metrics": _floats,
    "estimates": _floats,
    "time_ms": int,
}


def _plain(value: Any) -> Any:
    """Return ``value`` as JSON types; whatever is not one becomes its string."""
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in value]
    if value is None or isinstance(value, str | bool):
        return value
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real):
        return float(value) if math.isfinite(value) else str(float(value))
    return str(value)
