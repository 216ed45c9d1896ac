"""The report on a terminal: verdict first, then the tables it rests on, then what to type next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich import box
from rich.console import Console, Group
from rich.padding import Padding
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from orchestrator.report import naming
from orchestrator.report.document import Report
from orchestrator.report.naming import count, duration, percent, size
from orchestrator.report.parts import ConfirmRow, Spread, TeacherRow, TrialRow, Verdict

TOP = 10

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
    console.print(_next_steps(report, command))


def next_commands(report: Report, command: str = "orchestrator") -> list[tuple[str, str]]:
    """Return what to type next and what it does."""
    steps = []
    if report.best is not None:
        steps.append((f"{command} export {report.sweep} --output {report.sweep}-model", "ship it"))
    steps.append((f"{command} report {report.sweep} --format html > {report.sweep}.html", "plots"))
    steps.append((f"{command} ui", "compare the runs in MLflow"))
    return steps


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
    ranked = [row for row in report.ranked() if row.rank]
    if not ranked:
        return None
    shown = ranked[:TOP] + [row for row in ranked[TOP:] if naming.is_control(row.role)]
    states = _states([*report.controls, *report.students])
    title = f"Students by {naming.describe_metric(report.objective[0])} ({states})"
    objective = report.objective[0]
    columns = ["#", "student", "dev", "parameters", "size", "time"]
    table = _table(title, columns, "student")
    for row in shown:
        table.add_row(
            str(row.rank),
            _student(row),
            score(row.metrics, objective),
            count(row.metrics.get("parameters")),
            size(row.metrics.get("model_bytes")),
            duration(row.seconds),
            style="bold" if report.best and row.key == report.best.key else None,
        )
    if any(row.pareto for row in shown):
        table.caption = "◆ nothing smaller scores as high (Pareto front)"
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
    dev, test = _pair(report)
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
    dev, test = _pair(report)
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
    width = max(len(step) for step, _ in steps)
    for step, purpose in steps:
        text.append(f"  {step:<{width}}", style="not bold cyan")
        text.append(f"  {purpose}\n", style="not bold dim")
    text.rstrip()
    return text


def _pair(report: Report) -> tuple[str, str]:
    metric = naming.decision_metric(report.objective[0])
    return f"val_{metric}", f"test_{metric}"
