"""The report as Markdown, and its trials as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence

from orchestrator.report import naming
from orchestrator.report.document import Report
from orchestrator.report.naming import count, duration, percent, points, size
from orchestrator.report.phrases import (
    extra_objectives,
    next_commands,
    ratio_sentence,
    score,
    score_spread,
)

# Of a tag in MLflow; a longer one is refused.
MOST_DESCRIPTION = 8000


def to_csv(report: Report) -> str:
    """Return one row for each student trial, controls included, as CSV for pandas.

    Columns: identity, then ``params.*``, then ``metrics.*``; an empty cell is a missing value.
    """
    rows = report.ranked()
    params = _names(row.params for row in rows)
    metrics = _names(row.metrics for row in rows)
    fixed = ["key", "role", "state", "rank", "pareto", "method", "teachers", "epochs", "seconds"]
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(
        [*fixed, *(f"params.{name}" for name in params), *(f"metrics.{name}" for name in metrics)]
    )
    for row in rows:
        head = [row.key, row.role, row.state.value, row.rank, row.pareto, row.method]
        tail = ["+".join(row.teachers), row.epochs, row.seconds]
        values = [_cell(row.params.get(name)) for name in params]
        values += [_cell(row.metrics.get(name)) for name in metrics]
        writer.writerow(head + tail + values)
    return stream.getvalue()


def to_markdown(report: Report) -> str:
    """Return the report as GitHub-flavoured Markdown."""
    blocks = [f"# {report.sweep}", *_claims(report)]
    blocks += _leaderboard(report) + _teachers(report) + _confirm(report) + _classes(report)
    if report.notes:
        blocks.append("## Notes")
        blocks.append("\n".join(f"- {_escape(note)}" for note in report.notes))
    blocks.append("## Next")
    blocks.append("```bash\n" + "\n".join(step for step, _ in next_commands(report)) + "\n```")
    return "\n\n".join(blocks) + "\n"


def to_description(report: Report, limit: int = MOST_DESCRIPTION) -> str:
    """Return verdict and leaderboard as Markdown that MLflow shows on top of the sweep's run.

    Args:
        report: What to describe.
        limit: Characters; tables that do not fit are left out, the last first.
    """
    last = "Plots and all numbers: `report/report.html` among the artifacts."
    tables = [_confirm(report), _leaderboard(report), _teachers(report)]
    while True:
        blocks = [*_claims(report), *(block for table in tables for block in table), last]
        text = "\n\n".join(blocks)
        if len(text) <= limit or not tables:
            return text[:limit]
        tables.pop()


def _claims(report: Report) -> list[str]:
    claims = [f"**{item.verdict}**{_after_verdict(item.sentence)}" for item in report.comparisons]
    return [*claims, ratio_sentence(report)]


def _leaderboard(report: Report) -> list[str]:
    objective = report.objective[0]
    more = extra_objectives(report)
    header = ["#", "student", "role", objective, *more, "parameters", "size", "time"]
    rows = [
        [
            str(row.rank),
            row.method,
            row.role,
            score(row.metrics, objective),
            *(score(row.metrics, name) for name in more),
            count(row.metrics.get("parameters")),
            size(row.metrics.get("model_bytes")),
            duration(row.seconds),
        ]
        for row in report.leaders()
    ]
    return _section("Students", header, rows)


def _teachers(report: Report) -> list[str]:
    dev, test = naming.dev_and_test(report.objective[0])
    rows = [
        [
            row.name,
            score(row.metrics, dev),
            score(row.metrics, test),
            count(row.metrics.get("parameters")),
            size(row.metrics.get("model_bytes")),
            duration(row.metrics.get("train_seconds", row.seconds)),
        ]
        for row in report.teachers
    ]
    return _section("Teachers", ["teacher", dev, test, "parameters", "size", "time"], rows)


def _confirm(report: Report) -> list[str]:
    dev, test = naming.dev_and_test(report.objective[0])
    rows = [
        [
            "chosen" if row.chosen else row.role,
            row.method,
            str(len(row.seeds)),
            score_spread(row.metrics.get(dev)),
            score_spread(row.metrics.get(test)),
        ]
        for row in report.confirm
    ]
    return _section("Confirmed over seeds", ["role", "student", "seeds", dev, test], rows)


def _classes(report: Report) -> list[str]:
    rows = [
        [
            row.name,
            str(row.support),
            percent(row.candidate),
            percent(row.plain),
            "-" if row.change is None else points(row.change),
        ]
        for row in report.diagnosis.classes
    ]
    title = f"F1 by class ({report.diagnosis.split})"
    return _section(title, ["class", "examples", "candidate", "plain", "change"], rows)


def _section(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    if not rows:
        return []
    lines = [" | ".join(header), " | ".join("---" for _ in header)]
    lines += [" | ".join(_escape(cell) for cell in row) for row in rows]
    return [f"## {title}", "\n".join(f"| {line} |" for line in lines)]


def _after_verdict(sentence: str) -> str:
    return ":" + _escape(sentence.partition(":")[2])


def _escape(text: str) -> str:
    """Keep a cell in its cell and names with underscores or stars as they are."""
    for character in "\\|*_<":
        text = text.replace(character, "\\" + character)
    return text.replace("\n", " ")


def _names(mappings: Iterable[Iterable[str]]) -> list[str]:
    return sorted({name for mapping in mappings for name in mapping})


def _cell(value: object) -> object:
    if isinstance(value, (list, tuple)):
        return "+".join(str(item) for item in value)
    return value
