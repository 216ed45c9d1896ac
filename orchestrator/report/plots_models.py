"""Pictures of the compared models: intervals, classes, confusion, and of the time spent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from orchestrator.report import naming
from orchestrator.report.document import Report
from orchestrator.report.figure import (
    ACCENT,
    BAD,
    CARD,
    DIVERGING,
    GOOD,
    INK,
    MUTED,
    SEQUENTIAL,
    Figure,
    axis,
    percent_values,
)

# Numbers in the cells of a bigger matrix cannot be read on a phone.
_MOST_NUMBERED = 10


def model_figures(report: Report) -> list[Figure]:
    """Return the pictures for which there are predictions, and the time by stage."""
    figures = []
    if any(item.interval is not None for item in report.comparisons):
        figures.append(_intervals(report))
    if any(row.change is not None for row in report.diagnosis.classes):
        figures.append(_class_change(report))
    if report.diagnosis.confusion_candidate:
        figures.append(_confusion(report))
    if report.diagnosis.confusion_plain:
        figures.append(_confusion_change(report))
    if any(report.cost.stages.values()):
        figures.append(_time(report))
    return figures


def _intervals(report: Report) -> Figure:
    known = [(item, item.interval) for item in report.comparisons if item.interval is not None]
    labels = [naming.describe_role(item.control).removeprefix("the same ") for item, _ in known]
    estimates = [100 * interval.estimate for _, interval in known]
    error = {
        "type": "data",
        "symmetric": False,
        "array": [100 * (i.high - i.estimate) for _, i in known],
        "arrayminus": [100 * (i.estimate - i.low) for _, i in known],
        "thickness": 2.5,
        "width": 7,
        "color": ACCENT,
    }
    first = known[0][0]
    metric = f"{first.split} {naming.describe_metric(first.metric)}"
    return Figure(
        "intervals",
        "Candidate against the controls",
        "Difference with its 95 % interval over seeds and examples; right of the line the "
        "candidate is ahead.",
        [
            {
                "type": "scatter",
                "mode": "markers",
                "x": [round(value, 3) for value in estimates],
                "y": [_wrapped(label) for label in labels],
                "error_x": error,
                "marker": {"size": 11, "color": ACCENT},
                "hovertemplate": "%{x:+.2f} points<extra></extra>",
            }
        ],
        {
            "xaxis": axis(f"points of {metric}", zeroline=True, zerolinewidth=2, zerolinecolor=INK),
            "yaxis": axis("", type="category", range=[len(known) - 0.4, -0.6]),
            "shapes": [_zero_line()],
        },
        height=150 + 60 * len(known),
    )


def _zero_line() -> dict[str, Any]:
    return {
        "type": "line",
        "x0": 0,
        "x1": 0,
        "yref": "paper",
        "y0": 0,
        "y1": 1,
        "line": {"color": INK, "width": 1.5},
    }


def _class_change(report: Report) -> Figure:
    rows = sorted(
        (row for row in report.diagnosis.classes if row.change is not None),
        key=lambda row: row.change or 0.0,
    )
    changes = percent_values([row.change for row in rows])
    return Figure(
        "classes",
        "F1 by class: change by distillation",
        f"Candidate minus plain student on {report.diagnosis.split}, mean over seeds.",
        [
            {
                "type": "bar",
                "orientation": "h",
                "x": changes,
                "y": [row.name for row in rows],
                "marker": {"color": [GOOD if (c or 0) >= 0 else BAD for c in changes]},
                "customdata": [[row.support, 100 * row.candidate] for row in rows],
                "hovertemplate": (
                    "%{y}: %{x:+.1f} points, F1 %{customdata[1]:.1f}, "
                    "%{customdata[0]} examples<extra></extra>"
                ),
            }
        ],
        {"xaxis": axis("points of F1"), "yaxis": axis("", type="category")},
        height=max(260, 90 + 26 * len(rows)),
    )


def _shares(confusion: Sequence[Sequence[float]]) -> np.ndarray[Any, Any]:
    """Return each row of a confusion matrix in per cent of its class, ``[C, C]``."""
    counts = np.asarray(confusion, dtype=np.float64)
    return np.asarray(100 * counts / np.maximum(counts.sum(1, keepdims=True), 1))


def _confusion(report: Report) -> Figure:
    shares = _shares(report.diagnosis.confusion_candidate)
    return _matrix(
        report,
        "confusion",
        "Confusion of the candidate",
        "Per cent of each true class (row) that is predicted as each class (column).",
        shares,
        {"colorscale": SEQUENTIAL, "zmin": 0, "zmax": 100, "texttemplate": "%{z:.0f}"},
    )


def _confusion_change(report: Report) -> Figure:
    found = report.diagnosis
    change = _shares(found.confusion_candidate) - _shares(found.confusion_plain)
    limit = max(float(np.abs(change).max()), 1.0)
    return _matrix(
        report,
        "confusion-change",
        "Confusion: change by distillation",
        "Points by which each cell grew against the plain student. Growth is good on the diagonal "
        "and bad elsewhere.",
        change,
        {
            "colorscale": DIVERGING,
            "zmin": -limit,
            "zmax": limit,
            "text": [["" if abs(z) < 0.5 else f"{z:+.0f}" for z in row] for row in change.tolist()],
            "texttemplate": "%{text}",
        },
    )


def _matrix(
    report: Report,
    name: str,
    title: str,
    caption: str,
    values: np.ndarray[Any, Any],
    look: dict[str, Any],
) -> Figure:
    labels = [row.name for row in report.diagnosis.classes]
    if len(labels) > _MOST_NUMBERED:
        look = {key: value for key, value in look.items() if key != "texttemplate"}
    trace = {
        "type": "heatmap",
        "x": labels,
        "y": labels,
        "z": np.round(values, 2).tolist(),
        "showscale": False,
        "xgap": 1,
        "ygap": 1,
        "hovertemplate": "true %{y}<br>predicted %{x}: %{z:.1f}<extra></extra>",
        **look,
    }
    layout = {
        "xaxis": axis("predicted", type="category", tickangle=-40),
        "yaxis": axis("true", type="category", autorange="reversed"),
    }
    return Figure(name, title, caption, [trace], layout, height=max(320, 170 + 26 * len(labels)))


def _time(report: Report) -> Figure:
    cost = report.cost
    unit, length = _unit([*cost.stages.values(), cost.teacher_forwards_saved])
    spent = [(stage, seconds) for stage, seconds in cost.stages.items() if seconds > 0]
    saved = [
        ("saved: live teachers", cost.teacher_forwards_saved),
        ("saved: teachers in store", cost.teachers_reused),
    ]
    rows = spent + [(name, seconds) for name, seconds in saved if seconds > 0]
    return Figure(
        "time",
        "Where the time went",
        "Time of all trials by stage. Saved: teacher passes that cached outputs spared the "
        "students (estimated), and teachers that were already in the store.",
        [
            {
                "type": "bar",
                "orientation": "h",
                "x": [round(seconds / length, 3) for _, seconds in rows],
                "y": [name for name, _ in rows],
                "text": [naming.duration(seconds) for _, seconds in rows],
                "textposition": "auto",
                "insidetextfont": {"color": CARD},
                "marker": {
                    "color": [MUTED if name.startswith("saved") else ACCENT for name, _ in rows]
                },
                "hovertemplate": "%{y}: %{text}<extra></extra>",
            }
        ],
        {
            "xaxis": axis(unit),
            "yaxis": axis("", type="category", autorange="reversed"),
        },
        height=130 + 38 * len(rows),
        wide=True,
    )


def _unit(seconds: Sequence[float]) -> tuple[str, float]:
    """Return the unit in which the longest time has few digits, and its seconds."""
    longest = max(seconds, default=0.0)
    if longest < 300:
        return "seconds", 1.0
    return ("minutes", 60.0) if longest < 18000 else ("hours", 3600.0)


def _wrapped(label: str) -> str:
    """Break a long label in the middle so that it leaves room for the plot on a phone."""
    words = label.split()
    middle = (len(words) + 1) // 2
    return " ".join(words[:middle]) + "<br>" + " ".join(words[middle:])
