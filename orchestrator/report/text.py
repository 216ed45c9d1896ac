"""The report on a terminal: verdict first, then the tables it rests on, then what to type next."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Console, Group
from rich.padding import Padding
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from orchestrator.report import naming
from orchestrator.report.document import Report
from orchestrator.report.naming import count, duration, percent, size
from orchestrator.report.parts import ConfirmRow, TeacherRow, TrialRow, Verdict
from orchestrator.report.phrases import (
    extra_objectives,
    leading_trial,
    next_commands,
    ratio_sentence,
    score,
    score_spread,
)
from orchestrator.report.tables import to_markdown

__all__ = ["render_text", "to_markdown"]

_COLOURS = {Verdict.BEATS: "green", Verdict.NO_BEATS: "red", Verdict.INCONCLUSIVE: "yellow"}


def render_text(report: Report, console: Console, *, command: str = "orchestrator") -> None:
    """Print the report.

    Args:
        report: What to print.
        console: Where; its width is respected from 80 columns on.
        command: How the user calls the program, for the commands to type next.
    """
    console.print(_headline(report))
    for block in (_leaderboard(report), _teachers(report), _confirm(report), _methods(report)):
        if block is not None:
            console.print(block)
    if report.notes:
        console.print(Text("Notes", style="bold"))
        for note in report.notes:
            console.print(Padding(Text(f"• {note}"), (0, 0, 0, 1)))
        console.print()
    # A command that is broken over two lines cannot be copied.
    console.print(_next_steps(report, command), soft_wrap=True)


def _headline(report: Report) -> Panel:
    lines: list[Text] = []
    for comparison in report.comparisons:
        text = Text(comparison.sentence)
        text.stylize(f"bold {_COLOURS[comparison.verdict]}", 0, len(comparison.verdict))
        lines.append(text)
    lines.append(Text(ratio_sentence(report)))
    return Panel(
        Group(*lines),
        title=f"[bold]{report.sweep}[/]",
        title_align="left",
        border_style=_COLOURS[report.verdict],
    )


def _table(title: str, columns: Sequence[str], flexible: str) -> Table:
    table = Table(
        title=title,
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    for column in columns:
        left = column in {flexible, "role"}
        table.add_column(
            column,
            justify="left" if left else "right",
            no_wrap=not left,
            overflow="fold" if left else "ellipsis",
            ratio=None,
        )
    return table


def _leaderboard(report: Report) -> Table | None:
    shown = report.leaders()
    if not shown:
        return None
    leader = leading_trial(report)
    states = _states([*report.controls, *report.students])
    title = f"Students by {naming.describe_metric(report.objective[0])} ({states})"
    objective = report.objective[0]
    more = extra_objectives(report)
    added = [naming.describe_metric(name) for name in more]
    columns = ["#", "student", "dev", *added, "parameters", "size", "time"]
    table = _table(title, columns, "student")
    for row in shown:
        table.add_row(
            str(row.rank),
            _student(row),
            score(row.metrics, objective),
            *(score(row.metrics, name) for name in more),
            count(row.metrics.get("parameters")),
            size(row.metrics.get("model_bytes")),
            duration(row.seconds),
            style="bold" if row.key == leader else None,
        )
    if any(row.pareto for row in shown):
        table.caption = "◆ nothing cheaper scores as high (Pareto front)"
        table.caption_justify = "left"
    return table


def _student(row: TrialRow) -> Text:
    text = Text(row.method)
    if naming.is_control(row.role):
        text.append(f"  {row.role.replace(':', ' ')}", style="cyan")
    if row.pareto:
        text.append(" ◆", style="magenta")
    return text


def _states(rows: Sequence[TrialRow]) -> str:
    counts: dict[str, int] = {}
    for row in rows:
        counts[row.state.value] = counts.get(row.state.value, 0) + 1
    return ", ".join(f"{number} {state}" for state, number in counts.items())


def _teachers(report: Report) -> Table | None:
    if not report.teachers:
        return None
    dev, test = naming.dev_and_test(report.objective[0])
    table = _table("Teachers", ["teacher", "dev", "test", "parameters", "size", "time"], "teacher")
    for row in report.teachers:
        table.add_row(*_teacher(row, dev, test))
    if report.floor:
        names = (dev, test)
        floor = [report.floor.get(n, report.floor.get(n.removeprefix("val_"))) for n in names]
        table.add_row("TF-IDF floor", *map(percent, floor), "", "", "", style="dim")
    return table


def _teacher(row: TeacherRow, dev: str, test: str) -> list[str]:
    name = row.name if row.error is None else f"{row.name}: {row.error}"
    seconds = row.metrics.get("train_seconds", row.seconds)
    return [
        name,
        score(row.metrics, dev),
        score(row.metrics, test),
        count(row.metrics.get("parameters")),
        size(row.metrics.get("model_bytes")),
        duration(seconds),
    ]


def _confirm(report: Report) -> Table | None:
    if not report.confirm:
        return None
    dev, test = naming.dev_and_test(report.objective[0])
    words = naming.describe_metric(dev.removeprefix("val_"))
    title = f"Confirmed over seeds ({words}, mean ± standard deviation)"
    table = _table(title, ["role", "student", "seeds", "dev", "test"], "student")
    for row in report.confirm:
        table.add_row(
            _role(row),
            row.method,
            str(len(row.seeds)) + (f" ({row.failed} failed)" if row.failed else ""),
            score_spread(row.metrics.get(dev)),
            score_spread(row.metrics.get(test)),
            style="bold" if row.chosen else None,
        )
    return table


def _role(row: ConfirmRow) -> str:
    return "chosen" if row.chosen else row.role.removeprefix("control:").replace("_", " ")


def _methods(report: Report) -> Table | None:
    rows = [row for row in report.per_method if row.score is not None]
    if len(rows) < 2 or report.objective[1] != "max":
        return None
    title = f"Methods by {naming.describe_metric(report.objective[0])} over the search"
    table = _table(title, ["method", "mean", "best", "complete", "stopped", "failed"], "method")
    for row in rows:
        table.add_row(
            row.method,
            score_spread(row.score),
            percent(row.best),
            str(row.complete),
            str(row.pruned),
            str(row.failed),
        )
    return table


def _next_steps(report: Report, command: str) -> Text:
    text = Text("Next\n", style="bold")
    steps = next_commands(report, command)
    for step, purpose in steps:
        text.append(f"  {purpose:<6} ", style="not bold dim")
        text.append(f"{step}\n", style="not bold cyan")
    text.rstrip()
    return text
