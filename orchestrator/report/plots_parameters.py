"""Pictures of the search by parameter: slices and parallel coordinates."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from orchestrator.report import naming
from orchestrator.report.document import Report
from orchestrator.report.figure import ACCENT, SEQUENTIAL, Figure, axis
from orchestrator.report.importance import logarithmic, numeric, searched
from orchestrator.report.parts import TrialRow

_MOST_SLICES = 12
_MOST_AXES = 8


def parameter_figures(report: Report) -> list[Figure]:
    """Return parallel coordinates and a slice for each searched parameter."""
    names = [name for name in searched(report) if _tells(report, name)]
    figures = [_parallel(report, names)] if len(names) > 1 else []
    return figures + [_slice(report, name) for name in names[:_MOST_SLICES]]


def _tells(report: Report, name: str) -> bool:
    """Tell whether complete students differ in a parameter: else its picture shows nothing."""
    rows = [row for row in report.students if row.rank and name in row.params]
    return len({str(row.params[name]) for row in rows}) > 1


def score_axis(report: Report) -> dict[str, Any]:
    """Return the axis of the ranking metric."""
    name = naming.describe_metric(report.objective[0])
    return axis(f"{name}, %" if _is_share(report) else name)


def _is_share(report: Report) -> bool:
    plain = report.objective[0].removeprefix("val_")
    return naming.decision_metric(plain) == plain


def shown(report: Report, value: float) -> float:
    """Return a value of the ranking metric as drawn: a share in per cent."""
    return round(100 * value, 3) if _is_share(report) else value


def scores(report: Report, rows: Sequence[TrialRow]) -> list[float]:
    """Return what the rows scored, as drawn."""
    return [shown(report, row.metrics[report.objective[0]]) for row in rows]


def points(
    report: Report, rows: Sequence[TrialRow], x: Iterable[Any], name: str, **marker: Any
) -> dict[str, Any]:
    """Return a trace of one point for each trial, with its method on hover."""
    return {
        "type": "scatter",
        "mode": "markers",
        "name": name,
        "x": list(x),
        "y": scores(report, rows),
        "text": [f"{row.method}<br>{row.role}" for row in rows],
        "hovertemplate": "%{text}<br>%{y:.4g}<extra></extra>",
        "marker": {"size": 8, **marker},
    }


def _parallel(report: Report, names: Sequence[str]) -> Figure:
    rows = [row for row in report.students if row.rank]
    names = [name for name in names if all(name in row.params for row in rows)][:_MOST_AXES]
    dimensions = [_dimension(name, [row.params[name] for row in rows]) for name in names]
    reached = scores(report, rows)
    label = naming.describe_metric(report.objective[0])
    dimensions.append({"label": label, "values": reached})
    margin = 30 + 7 * max(len(str(text)) for text in dimensions[0].get("ticktext", ["0.000"]))
    line = {"color": reached, "colorscale": SEQUENTIAL, "showscale": False}
    return Figure(
        "parallel",
        "Parallel coordinates",
        "One line for each complete student, stronger colour for a higher score. Drag along an "
        "axis to select.",
        [{"type": "parcoords", "dimensions": dimensions, "line": line}],
        {"margin": {"l": margin, "r": 60, "t": 50, "b": 30}},
        height=380,
        wide=True,
        scroll=130 * len(dimensions),
    )


def _dimension(name: str, values: Sequence[Any]) -> dict[str, Any]:
    if _counted(values):
        return {"label": name, "values": list(values), "tickvals": sorted(set(values))}
    if numeric(values) and not logarithmic(values):
        return {"label": name, "values": list(values)}
    if numeric(values):  # plotly has no logarithmic axis here
        powers = [math.log10(value) for value in values]
        ticks = list(range(math.floor(min(powers)), math.ceil(max(powers)) + 1))
        labels = [f"{10.0**tick:g}" for tick in ticks]
        return {"label": name, "values": powers, "tickvals": ticks, "ticktext": labels}
    words = ["+".join(map(str, v)) if isinstance(v, (list, tuple)) else str(v) for v in values]
    labels = sorted(set(words))
    return {
        "label": name,
        "values": [labels.index(word) for word in words],
        "tickvals": list(range(len(labels))),
        "ticktext": labels,
    }


def _counted(values: Sequence[Any]) -> bool:
    """Tell whether all values are a few whole numbers, between which there is nothing."""
    return numeric(values) and all(isinstance(v, int) for v in values) and len(set(values)) <= 10


def _slice(report: Report, name: str) -> Figure:
    rows = [row for row in report.students if row.rank and name in row.params]
    values = [row.params[name] for row in rows]
    kind: dict[str, Any] = {"type": "category"}
    if _counted(values):
        kind = {"type": "linear", "tickvals": sorted(set(values))}
    elif numeric(values):
        kind = {"type": "log" if logarithmic(values) else "linear"}
    else:
        values = ["+".join(map(str, v)) if isinstance(v, (list, tuple)) else str(v) for v in values]
    return Figure(
        f"slice-{name}",
        name,
        "",
        [points(report, rows, values, name, color=ACCENT, opacity=0.65)],
        {"xaxis": axis("", **kind), "yaxis": score_axis(report), "showlegend": False},
        height=240,
    )
