"""Sentences and cells that the text, Markdown and HTML reports share."""

from __future__ import annotations

from collections.abc import Mapping

from orchestrator.report import naming
from orchestrator.report.document import Report
from orchestrator.report.naming import count, percent, size
from orchestrator.report.parts import Spread


def next_commands(report: Report, command: str = "orchestrator") -> list[tuple[str, str]]:
    """Return what to type next and what it does."""
    page = f"{report.sweep}.html"
    return [
        (f"{command} report {report.sweep} --format html --output {page}", "plots"),
        (f"{command} ui", "runs"),
        (f"{command} export {report.sweep} --output {report.sweep}-student", "ship"),
    ]


def score(metrics: Mapping[str, float], name: str) -> str:
    """Return a metric for a table: a score in per cent, anything else in three digits."""
    value = metrics.get(name)
    if value is None:
        return "-"
    plain = name.removeprefix("val_").removeprefix("test_")
    if plain == "parameters":
        return count(value)
    if plain == "model_bytes":
        return size(value)
    return percent(value) if naming.decision_metric(plain) == plain else f"{value:.3g}"


def extra_objectives(report: Report) -> list[str]:
    """Return the objectives of the search that no table has a column for anyway."""
    known = {report.objective[0], "parameters", "model_bytes"}
    return [name for name, _ in report.pareto.objectives if name not in known]


def leading_trial(report: Report) -> str | None:
    """Return the key of the student to look at: the confirmed one, else the best so far."""
    if report.chosen is not None:
        return report.chosen.group
    return report.best.key if report.best is not None else None


def score_spread(spread: Spread | None) -> str:
    """Return mean ± standard deviation in per cent."""
    if spread is None:
        return "-"
    if spread.n == 1:
        return percent(spread.mean)
    return f"{percent(spread.mean)} ± {percent(spread.std)}"


def ratio_sentence(report: Report) -> str:
    """Return the distillation ratio with the three scores it is made of."""
    found = report.distillation
    if found.ratio is None:
        return f"Distillation ratio: not defined; {found.reason}."
    return (
        f"Distillation ratio {found.ratio:.2f}: student {percent(found.student)}, plain student "
        f"{percent(found.plain)}, best teacher {found.teacher_name} {percent(found.teacher)} "
        f"({found.split} {naming.describe_metric(found.metric)})."
    )
