"""Pictures of the search: trade-off, progress, importance, slices, subsets of teachers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from orchestrator.records import TrialState
from orchestrator.report import naming
from orchestrator.report.document import Report
from orchestrator.report.figure import (
    ACCENT,
    GOOD,
    MUTED,
    SECOND,
    SEQUENTIAL,
    THIRD,
    Figure,
    axis,
    magnitude_axis,
)
from orchestrator.report.importance import Importance
from orchestrator.report.parts import TeacherRow, TrialRow
from orchestrator.report.plots_parameters import (
    parameter_figures,
    points,
    score_axis,
    scores,
    shown,
)


def search_figures(report: Report, importance: Importance | None) -> list[Figure]:
    """Return the pictures for which the sweep has enough trials."""
    if not any(row.rank for row in report.ranked()):
        return []
    figures = [_pareto(report), _best_so_far(report)]
    if importance is not None:
        figures.append(_importance(importance))
    if len(set(report.pareto.hypervolume)) > 1 and _differ(report):
        figures.append(_hypervolume(report))
    found = _subsets(report)
    figures += [found] if found is not None else []
    return figures + parameter_figures(report)


def _pareto(report: Report) -> Figure:
    objective, against = report.objective[0], report.pareto.against
    rows = [row for row in report.ranked() if row.rank and row.metrics.get(against, 0) > 0]

    def cost(row: TrialRow | TeacherRow) -> float:
        return row.metrics[against]

    others = [row for row in rows if not row.pareto and not naming.is_control(row.role)]
    controls = [row for row in rows if naming.is_control(row.role)]
    chosen = sorted((row for row in rows if row.pareto), key=cost)
    teachers = [row for row in report.teachers if {objective, against} <= set(row.metrics)]
    # With a third objective the front is a surface, and a line through it would jump about.
    rising = sorted(chosen, key=lambda row: (row.metrics[objective], cost(row))) in (
        chosen,
        chosen[::-1],
    )
    data = [
        points(report, others, map(cost, others), "students", color=MUTED, opacity=0.75),
        points(report, controls, map(cost, controls), "controls", color=SECOND, symbol="diamond"),
        {
            **points(report, chosen, map(cost, chosen), "Pareto front", color=ACCENT),
            "mode": "lines+markers" if rising else "markers",
            "line": {"shape": "hv", "width": 2, "color": ACCENT},
            "marker": {"size": 10, "color": ACCENT},
        },
        {
            "type": "scatter",
            "mode": "markers",
            "name": "teachers",
            "x": [cost(row) for row in teachers],
            "y": [shown(report, row.metrics[objective]) for row in teachers],
            "text": [row.name for row in teachers],
            "hovertemplate": "%{text}<br>%{y:.4g}<extra></extra>",
            "marker": {"size": 12, "symbol": "star", "color": GOOD},
        },
    ]
    return Figure(
        "pareto",
        f"Score against {naming.describe_metric(against).partition(',')[0]}",
        "Each complete student, the controls and the teachers. On the front, nothing is better in "
        f"one of {_objectives(report)} without being worse in another.",
        [trace for trace in data if trace["x"]],
        {
            "xaxis": magnitude_axis(against, [*map(cost, rows), *map(cost, teachers)] or [1.0]),
            "yaxis": score_axis(report),
        },
        height=400,
        wide=True,
    )


def _best_so_far(report: Report) -> Figure:
    objective, direction = report.objective
    rows = [*report.controls, *report.students]
    better = max if direction == "max" else min
    finished = [(i, row) for i, row in enumerate(rows, start=1) if row.rank]
    stopped = [
        (i, row)
        for i, row in enumerate(rows, start=1)
        if row.state is TrialState.PRUNED and objective in row.metrics
    ]
    span = [1, len(rows)]
    running: list[float] = []
    for _, row in finished:
        value = shown(report, row.metrics[objective])
        running.append(better(running[-1], value) if running else value)
    plain = next((row for row in report.controls if row.role == naming.PLAIN and row.rank), None)
    numbers = [i for i, _ in finished]
    data = [
        points(report, [r for _, r in finished], numbers, "complete", color=MUTED, opacity=0.7),
        points(
            report,
            [r for _, r in stopped],
            [i for i, _ in stopped],
            "stopped early",
            color=MUTED,
            symbol="circle-open",
        ),
        {
            "type": "scatter",
            "mode": "lines",
            "name": "best so far",
            "x": [*numbers, span[1]],
            "y": [*running, running[-1]],
            "line": {"color": ACCENT, "width": 2.5, "shape": "hv"},
        },
    ]
    levels = [("plain student", plain.metrics.get(objective) if plain else None, SECOND)]
    scored = [row.metrics[objective] for row in report.teachers if objective in row.metrics]
    levels.append(("best teacher", better(scored, default=None), GOOD))
    data += [
        _level(name, span, shown(report, value), colour)
        for name, value, colour in levels
        if value is not None
    ]
    return Figure(
        "progress",
        "Best so far",
        "Score of each trial in the order they ran, controls first.",
        [trace for trace in data if trace["x"]],
        {"xaxis": axis("trial"), "yaxis": score_axis(report)},
    )


def _level(name: str, span: Sequence[int], value: float, colour: str) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "lines",
        "name": name,
        "x": span,
        "y": [value, value],
        "line": {"color": colour, "width": 1.5, "dash": "dash"},
    }


def _importance(found: Importance) -> Figure:
    names = list(found.shares)[::-1]
    return Figure(
        "importance",
        "What mattered",
        f"Share of the score's variation that each searched parameter explains ({found.method})."
        + (" Rough: some ranges hold few trials." if found.rough else ""),
        [
            {
                "type": "bar",
                "orientation": "h",
                "x": [round(100 * found.shares[name], 2) for name in names],
                "y": names,
                "marker": {"color": ACCENT},
                "hovertemplate": "%{y}: %{x:.1f} %<extra></extra>",
            }
        ],
        {"xaxis": axis("importance, %"), "yaxis": axis("", type="category")},
        height=max(220, 60 + 34 * len(names)),
    )


def _hypervolume(report: Report) -> Figure:
    values = [round(100 * value, 3) for value in report.pareto.hypervolume]
    return Figure(
        "hypervolume",
        "Hypervolume over time",
        f"Share of the rectangle of {naming.describe_metric(report.objective[0])} by "
        f"{naming.describe_metric(report.pareto.against).partition(',')[0]} that is dominated; "
        "flat means that more trials of this kind will not help.",
        [
            {
                "type": "scatter",
                "mode": "lines",
                "x": list(range(1, len(values) + 1)),
                "y": values,
                "line": {"color": THIRD, "width": 2.5, "shape": "hv"},
                "fill": "tozeroy",
                "fillcolor": "theme:thirdsoft",
            }
        ],
        {"xaxis": axis("complete trials"), "yaxis": axis("hypervolume, %", rangemode="tozero")},
    )


def _subsets(report: Report) -> Figure | None:
    """Draw mean score by subset of teachers and method; None without a choice of teachers."""
    rows = [row for row in report.ranked() if row.rank and row.teachers]
    cells: dict[tuple[str, str], list[float]] = {}
    for row, value in zip(rows, scores(report, rows), strict=True):
        method = str(row.params.get("weighting") or row.params.get("loss") or "default")
        cells.setdefault(("+".join(row.teachers), method), []).append(value)
    subsets = sorted({subset for subset, _ in cells}, key=lambda name: (name.count("+"), name))
    methods = sorted({method for _, method in cells})
    if len(subsets) < 2:
        return None
    means = [[_mean(cells.get((s, m))) for m in methods] for s in subsets]
    text = [[_cell_text(cells.get((s, m))) for m in methods] for s in subsets]
    return Figure(
        "subsets",
        "Which teachers",
        "Mean score of the complete students by subset of teachers and weighting; the number of "
        "trials in brackets.",
        [_heatmap(methods, subsets, means, text)],
        {"xaxis": axis("", type="category"), "yaxis": axis("", type="category")},
        height=max(260, 90 + 44 * len(subsets)),
        scroll=90 * len(methods) + 140,
    )


def _heatmap(
    x: Sequence[str], y: Sequence[str], z: Sequence[Sequence[Any]], text: Sequence[Sequence[str]]
) -> dict[str, Any]:
    return {
        "type": "heatmap",
        "x": x,
        "y": y,
        "z": z,
        "text": text,
        "texttemplate": "%{text}",
        "hovertemplate": "%{y}<br>%{x}: %{text}<extra></extra>",
        "colorscale": SEQUENTIAL,
        "showscale": False,
        "xgap": 2,
        "ygap": 2,
    }


def _differ(report: Report) -> bool:
    """Tell whether the students differ in what is traded: else the front is a single score."""
    against = report.pareto.against
    return len({row.metrics.get(against) for row in report.ranked() if row.rank}) > 1


def _objectives(report: Report) -> str:
    names = [naming.describe_metric(name) for name, _ in report.pareto.objectives]
    names = [name.partition(",")[0] for name in names]
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + " and " + names[-1]


def _mean(values: Sequence[float] | None) -> float | None:
    return sum(values) / len(values) if values else None


def _cell_text(values: Sequence[float] | None) -> str:
    return f"{sum(values) / len(values):.1f} ({len(values)})" if values else ""
