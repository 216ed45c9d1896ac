import json
import math

import numpy as np
import pytest

from orchestrator.records import Stage, TrialState
from orchestrator.tracking.events import (
    ArtifactLogged,
    Event,
    Notice,
    StageFinished,
    StageStarted,
    SweepFinished,
    SweepStarted,
    TrialFinished,
    TrialReported,
    TrialStarted,
    decode,
    encode,
)

EVENTS: list[Event] = [
    SweepStarted(
        "news",
        {"a": {"b": [1, 2.5, None, True]}},
        {"git_sha": "abc"},
        {"digest": "d"},
        {"students": 60.0},
        direction="min",
        time_ms=1,
    ),
    StageStarted(Stage.STUDENTS, 60, 3, 2, time_ms=2),
    TrialStarted(Stage.STUDENTS, "k", "kd T=3 — 教师", {"loss": "kd"}, {"role": "search"}, 5),
    TrialReported(Stage.STUDENTS, "k", 0, {"val_loss": 0.1}, time_ms=3),
    TrialFinished(Stage.STUDENTS, "k", TrialState.FAILED, {}, "boom\n\u2028line", 1.5),
    StageFinished(Stage.STUDENTS, 9.0),
    SweepFinished(TrialState.LOST, {"distillation_ratio": 0.8}),
    ArtifactLogged("report/a.html", text="<html>\r\n"),
    ArtifactLogged("b.png", path="plots/b.png"),
    Notice("warning", "a\nb"),
]


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
def test_round_trip_is_one_line_of_strict_json(event: Event) -> None:
    line = encode(event, seq=7)
    assert "\n" not in line
    record = json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert record["seq"] == 7
    assert decode(record) == event


def test_non_finite_and_numpy_metrics_survive() -> None:
    event = TrialReported(
        Stage.STUDENTS,
        "k",
        1,
        {"a": math.nan, "b": -math.inf, "c": np.float32(0.5), "d": np.int64(3)},  # type: ignore[dict-item]
    )
    back = decode(json.loads(encode(event)))
    assert isinstance(back, TrialReported)
    assert math.isnan(back.metrics["a"])
    assert {name: back.metrics[name] for name in "bcd"} == {"b": -math.inf, "c": 0.5, "d": 3.0}


def test_fields_of_a_newer_version_are_ignored() -> None:
    record = {"type": "StageFinished", "stage": "students", "seconds": 1.0, "planet": "mars"}
    assert decode(record) == StageFinished(Stage.STUDENTS, 1.0)


@pytest.mark.parametrize(
    "record",
    [
        {},
        {"type": "Nonsense"},
        {"type": "TrialReported", "stage": "students"},
        {"type": "StageFinished", "stage": "lunch"},
        {"type": "SweepFinished", "state": "complete", "metrics": [1]},
    ],
)
def test_what_is_not_an_event_is_a_value_error(record: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        decode(record)


def test_an_artifact_is_either_text_or_a_file() -> None:
    with pytest.raises(ValueError, match="either text or path"):
        ArtifactLogged("a.txt")
    with pytest.raises(ValueError, match="either text or path"):
        ArtifactLogged("a.txt", text="x", path="y")
