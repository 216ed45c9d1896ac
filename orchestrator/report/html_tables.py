"""The tables of the HTML report.

Cells of a table are HTML already; everything that comes from a sweep is escaped here.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

from orchestrator.report import naming
from orchestrator.report.document import Report
from orchestrator.report.naming import count, describe_metric, duration, percent, size
from orchestrator.report.phrases import extra_objectives, leading_trial, score, score_spread

METHODS = ("method", "mean", "best", "complete", "stopped", "failed")


def prose(text: str) -> str:
    """Return text as HTML in which numbers stay on one line with their signs."""
    page = escape(text, quote=False).replace(" %", "\u00a0%")
    for sign in ("=", "&lt;"):
        page = page.replace(f" {sign} ", f"\u00a0{sign}\u00a0")
    return page


def result_tables(report: Report) -> str:
    """Return what was confirmed, the students, the teachers and the methods, each in a card."""
    dev, test = naming.dev_and_test(report.objective[0])
    objective = report.objective[0]
    more = extra_objectives(report)
    leader = leading_trial(report)
    students = [
        (
            [
                str(row.rank),
                _method(row.method, row.role, row.pareto),
                score(row.metrics, objective),
                *(score(row.metrics, name) for name in more),
                count(row.metrics.get("parameters")),
                size(row.metrics.get("model_bytes")),
                duration(row.seconds),
            ],
            row.key == leader,
        )
        for row in report.leaders()
    ]
    teachers = [
        (
            [
                escape(row.name),
                score(row.metrics, dev),
                score(row.metrics, test),
                count(row.metrics.get("parameters")),
                size(row.metrics.get("model_bytes")),
                duration(row.metrics.get("train_seconds", row.seconds)),
            ],
            False,
        )
        for row in report.teachers
    ]
    if report.floor:
        floor = [report.floor.get(dev, report.floor.get(dev.removeprefix("val_")))]
        floor.append(report.floor.get(test))
        teachers.append((["TF-IDF floor", *map(percent, floor), "", "", ""], False))
    confirmed = [
        (
            [
                _method(row.method, "chosen" if row.chosen else row.role, False),
                str(len(row.seeds)),
                score_spread(row.metrics.get(dev)),
                score_spread(row.metrics.get(test)),
            ],
            row.chosen,
        )
        for row in report.confirm
    ]
    added = [describe_metric(name) for name in more]
    last = ["parameters", "size", "time"]
    metric = describe_metric(objective)
    return "\n".join(
        [
            _table("Confirmed over seeds", ["student", "seeds", "dev", "test"], confirmed, 0),
            _table("Students", ["#", "student", "dev", *added, *last], students, 1),
            _table("Teachers", ["teacher", "dev", "test", *last], teachers, 0),
            _table(f"Methods by {metric} over the search", METHODS, _methods(report), 0),
        ]
    )


def _methods(report: Report) -> list[tuple[Sequence[str], bool]]:
    return [
        (
            [
                escape(row.method),
                score_spread(row.score),
                percent(row.best),
                *(str(number) for number in (row.complete, row.pruned, row.failed)),
            ],
            False,
        )
        for row in report.per_method
    ]


def fidelity_table(report: Report) -> str:
    """Return how the compared models relate to truth and teachers."""
    rows = report.diagnosis.fidelity
    names = list(dict.fromkeys(name for row in rows for name in row.agreement))
    cells: list[tuple[Sequence[Any], bool]] = [
        (
            [
                escape(row.model.replace("control:", "control ").replace("teacher:", "teacher ")),
                percent(row.ece),
                *(percent(row.agreement.get(name)) for name in names),
            ],
            row.model == naming.CANDIDATE,
        )
        for row in rows
    ]
    header = ["model", "calibration error", *(f"agrees with {name}" for name in names)]
    table = _table(f"Calibration and agreement on {report.diagnosis.split}, %", header, cells, 0)
    found = report.diagnosis
    if not found.n_suspects:
        return table
    shown = ", ".join(map(str, found.suspects[:10]))
    return table + (
        f'<p class="also">Every teacher gets {found.n_suspects} dev examples wrong; mislabelled '
        f"ones are among them. The surest ids: {shown}.</p>"
    )


def _method(method: str, role: str, pareto: bool) -> str:
    """Return the cell of a student; the role is worth a word unless it was just searched."""
    tag = "" if role in {"search", "candidate"} else role.replace(":", " ").replace("_", " ")
    front = ' <span class="front" title="on the Pareto front">◆</span>' if pareto else ""
    return f'{escape(method)} <span class="tag">{escape(tag)}</span>{front}'


def _table(
    title: str, header: Sequence[str], rows: Sequence[tuple[Sequence[str], bool]], text: int
) -> str:
    """Return a table in a card; ``text`` is the column that is not a number.

    What matters least is hidden on a phone, where it does not fit.
    """
    if not rows:
        return ""
    classes = ["" if i == text else "n" for i in range(len(header))]
    classes = [
        f"{kind} minor" if name in {"size", "time", "failed"} else kind
        for kind, name in zip(classes, header, strict=True)
    ]
    head = "".join(
        f'<th class="{kind}">{escape(name)}</th>'
        for kind, name in zip(classes, header, strict=True)
    )
    lines = []
    for cells, chosen in rows:
        columns = zip(classes, cells, strict=True)
        line = "".join(f'<td class="{kind}">{cell}</td>' for kind, cell in columns)
        lines.append(f'<tr class="chosen">{line}</tr>' if chosen else f"<tr>{line}</tr>")
    return (
        f'<h2>{escape(title)}</h2><div class="card"><div class="scroll"><table><thead><tr>{head}'
        f"</tr></thead><tbody>{''.join(lines)}</tbody></table></div></div>"
    )
