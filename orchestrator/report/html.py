"""The report as one HTML file that opens offline: plotly is inside, nothing is fetched."""

from __future__ import annotations

import json
from collections.abc import Sequence
from html import escape
from importlib.resources import files
from typing import TYPE_CHECKING

from orchestrator.report import naming
from orchestrator.report.document import Report
from orchestrator.report.figure import Figure
from orchestrator.report.html_tables import fidelity_table, prose, result_tables
from orchestrator.report.importance import importance
from orchestrator.report.naming import count, duration, percent
from orchestrator.report.parts import Verdict
from orchestrator.report.phrases import next_commands, ratio_sentence
from orchestrator.report.plots_models import model_figures
from orchestrator.report.plots_search import search_figures

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

# The page may run its own scripts and fetch nothing. Plotly's parallel coordinates compile
# their drawing code, hence unsafe-eval.
_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval'; style-src 'unsafe-inline'; "
    "img-src data: blob:"
)

# What decides first, what explains it after; slices follow in their own section.
_FIRST = ("pareto", "intervals", "progress", "classes", "importance", "subsets", "hypervolume")
_ORDER = {name: place for place, name in enumerate(_FIRST)}


def to_html(report: Report, frozen: Sequence[FrozenTrial] | None = None) -> str:
    """Return the whole page.

    Args:
        report: What to show.
        frozen: Trials of the Optuna study, for the importance of parameters; without them the
            report's own trials are used.
    """
    from plotly.offline import get_plotlyjs

    figures = search_figures(report, importance(report, frozen)) + model_figures(report)
    figures.sort(key=lambda figure: _ORDER.get(figure.name, len(_ORDER)))
    body = "\n".join(
        [
            _header(report),
            _notes(report),
            result_tables(report),
            _sections(figures),
            fidelity_table(report),
            _next(report),
        ]
    )
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        f"<title>{escape(report.sweep)}: {report.verdict}</title>\n"
        f"<style>{_resource('page.css')}</style>\n</head>\n<body>\n<main>\n{body}\n</main>\n"
        f'<script type="application/json" id="figures">{_figures_json(figures)}</script>\n'
        f"<script>{get_plotlyjs()}</script>\n<script>{_resource('page.js')}</script>\n"
        "</body>\n</html>\n"
    )


def _resource(name: str) -> str:
    return files("orchestrator.report").joinpath(name).read_text(encoding="utf-8")


def _figures_json(figures: Sequence[Figure]) -> str:
    """Return the figures as JSON that cannot end the script element it stands in."""
    plain = [
        {"name": f.name, "data": f.data, "layout": f.layout, "height": f.height} for f in figures
    ]
    return json.dumps(plain, ensure_ascii=False, allow_nan=False).replace("<", "\\u003c")


def _header(report: Report) -> str:
    sentences = [item.sentence.partition(": ")[2] for item in report.comparisons]
    also = [
        f'<p class="also"><b class="{_kind(item.verdict)}">{item.verdict}</b> {prose(sentence)}</p>'
        for item, sentence in zip(report.comparisons[1:], sentences[1:], strict=True)
    ]
    return "\n".join(
        [
            f"<header><h1>{escape(report.sweep)}</h1>",
            f'<span class="badge {_kind(report.verdict)}">{escape(report.verdict)}</span>',
            f'<p class="lead">{prose(sentences[0])}</p>',
            *also,
            f'<p class="also">{prose(ratio_sentence(report))}</p></header>',
            f'<div class="tiles">{"".join(_tiles(report))}</div>',
        ]
    )


def _kind(verdict: Verdict) -> str:
    """Return the verdict as a CSS class."""
    return verdict.lower().replace(" ", "-")


def _tiles(report: Report) -> list[str]:
    found = report.distillation
    unit = f"{found.split} {naming.describe_metric(found.metric)}"
    tiles = [
        ("-" if found.ratio is None else f"{found.ratio:.2f}", "distillation ratio"),
        (percent(found.student), f"student, {unit}"),
        (percent(found.plain), "the same without a teacher"),
        (percent(found.teacher), f"best teacher {found.teacher_name or ''}"),
    ]
    parameters = _parameters(report)
    if parameters is not None:
        tiles.append((count(parameters), _smaller(report, parameters)))
    tiles.append((duration(sum(report.cost.stages.values())), "in all trials"))
    return [
        f'<div class="tile"><b>{escape(value)}</b><span>{escape(label)}</span></div>'
        for value, label in tiles
    ]


def _parameters(report: Report) -> float | None:
    """Return the size of the confirmed candidate, else of the best trial."""
    if report.chosen is not None and "parameters" in report.chosen.metrics:
        return report.chosen.metrics["parameters"].mean
    return report.best.metrics.get("parameters") if report.best else None


def _smaller(report: Report, parameters: float) -> str:
    name = report.distillation.teacher_name
    teacher = next((row for row in report.teachers if row.name == name), None)
    if teacher is None or "parameters" not in teacher.metrics:
        return "parameters"
    return f"parameters, {teacher.metrics['parameters'] / parameters:.0f}x fewer than the teacher"


def _notes(report: Report) -> str:
    if not report.notes:
        return ""
    items = "".join(f"<li>{prose(note)}</li>" for note in report.notes)
    return f'<div class="notes"><b>Before you believe it</b><ul>{items}</ul></div>'


def _sections(figures: Sequence[Figure]) -> str:
    slices = [figure for figure in figures if figure.name.startswith("slice-")]
    others = [figure for figure in figures if not figure.name.startswith("slice-")]
    parts = []
    if others:
        parts.append(f'<h2>Pictures</h2><div class="grid">{"".join(map(_card, others))}</div>')
    if slices:
        parts.append(
            "<h2>Score by parameter</h2>"
            f'<div class="grid small">{"".join(map(_card, slices))}</div>'
        )
    return "\n".join(parts)


def _card(figure: Figure) -> str:
    wide = " wide" if figure.wide else ""
    caption = f"<p>{escape(figure.caption)}</p>" if figure.caption else ""
    style = f"min-width:{figure.scroll}px;" if figure.scroll else ""
    return (
        f'<section class="card{wide}"><h3>{escape(figure.title)}</h3>{caption}'
        f'<div class="scroll"><div id="plot-{escape(figure.name)}" '
        f'style="{style}height:{figure.height}px"></div></div></section>'
    )


def _next(report: Report) -> str:
    # Whoever reads this has the plots already.
    steps = [step for step, what in next_commands(report) if what != "plots"]
    lines = "\n".join(map(escape, steps))
    return f"<h2>Next</h2><pre>{lines}</pre>"
