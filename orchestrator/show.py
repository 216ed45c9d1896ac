"""How results are shown to people: rich tables on stdout, plain when it is not a terminal."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from orchestrator.errors import UsageError
from orchestrator.report.naming import describe_metric, duration

if TYPE_CHECKING:
    from orchestrator.doctor import Check
    from orchestrator.plan import Plan, StagePlan
    from orchestrator.report.document import Report
    from orchestrator.report.reproduced import Reproduction
    from orchestrator.status import Status


def render_report(report: Report, fmt: str) -> str:
    """Return a report as ``text``, ``md``, ``csv``, ``json`` or ``html``.

    Raises:
        UsageError: There is no such format.
    """
    from orchestrator.report.html import to_html
    from orchestrator.report.tables import to_csv
    from orchestrator.report.text import render_text, to_markdown

    if fmt == "text":
        buffer = io.StringIO()
        render_text(report, Console(file=buffer, width=100))
        return buffer.getvalue()
    makers: dict[str, Callable[[Report], str]] = {
        "md": to_markdown,
        "csv": to_csv,
        "json": lambda r: json.dumps(r.to_json(), indent=1, ensure_ascii=False),
        "html": to_html,
    }
    if fmt not in makers:
        raise UsageError(f"unknown format {fmt!r}; there are: text, {', '.join(makers)}")
    return makers[fmt](report)


def show_plan(plan: Plan) -> None:
    """Print a plan."""
    console = Console(highlight=False)
    console.print(f"[bold]{plan.sweep}[/bold]")
    console.print(_rows_table(plan))
    for note in plan.data["notes"]:
        console.print(Text(f"note: {note}", style="yellow"))
    majority, floor = plan.data["majority"], plan.floor.get("val_accuracy")
    console.print(
        f"dev accuracy to beat: biggest class {majority:.3f}"
        + ("" if floor is None else f", TF-IDF + logistic regression {floor:.3f}")
    )
    table = Table(box=None, pad_edge=False)
    for name in ("stage", "trials", "cached", "at once", "about"):
        table.add_column(name, justify="left" if name == "stage" else "right")
    for stage in plan.stages:
        about = "-" if stage.seconds is None else duration(stage.seconds)
        table.add_row(stage.stage, str(stage.trials), str(stage.cached), str(stage.slots), about)
    console.print(table)
    for line in _reuse_lines(plan):
        console.print(Text(line, style="dim"))
    if plan.seconds is not None:
        console.print(
            f"about {duration(plan.seconds)} on this machine, if no trial is stopped early"
        )


def _reuse_lines(plan: Plan) -> Iterator[str]:
    """Say what was changed since the last start, and which trials that leaves as they are."""
    for name, (before, now) in plan.changed.items():
        yield f"changed since the last start: {name} {before or 'unset'} -> {now or 'unset'}"
    if not any(stage.cached for stage in plan.stages):
        return
    for stage in plan.stages:
        parts = [f"{word} {', '.join(names)}" for word, names in _named(stage) if names]
        if parts:
            yield f"{stage.stage}: {'; '.join(parts)}"


def _named(stage: StagePlan) -> tuple[tuple[str, Sequence[str]], ...]:
    return (("reused", stage.reused), ("new", stage.new))


def _rows_table(plan: Plan) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("class")
    splits = [split for split in plan.data["class_counts"] if any(plan.data["class_counts"][split])]
    for split in splits:
        table.add_column(split, justify="right")
    classes: Sequence[str] = plan.data["classes"]
    shown = classes if len(classes) <= 30 else classes[:30]
    for number, name in enumerate(shown):
        table.add_row(name, *(str(plan.data["class_counts"][split][number]) for split in splits))
    if len(classes) > len(shown):
        table.add_row(f"... {len(classes) - len(shown)} more", *("" for _ in splits))
    table.add_row("all", *(str(plan.data["rows"].get(split, 0)) for split in splits), style="bold")
    if plan.data["rows"].get("transfer"):
        table.add_row(f"unlabelled transfer rows: {plan.data['rows']['transfer']}", style="dim")
    return table


def show_status(status: Status) -> None:
    """Print how far a sweep is."""
    console = Console(highlight=False)
    state = "running" if status.running else "not running"
    console.print(f"[bold]{status.sweep}[/bold] ({state})")
    table = Table(box=None, pad_edge=False)
    for name in ("stage", "complete", "pruned", "failed", "running", "best"):
        table.add_column(name, justify="left" if name == "stage" else "right")
    for stage in status.stages:
        counts = [str(stage.states.get(n, 0)) for n in ("complete", "pruned", "failed", "running")]
        table.add_row(stage.stage, *counts, "-" if stage.best is None else f"{stage.best:.4f}")
    console.print(table)
    console.print(f"best is {describe_metric(status.objective)}")
    for failure in status.failures:
        console.print(
            Text(f"\nfailed: {failure.stage} {failure.role} {failure.key[:12]}", style="red")
        )
        console.print(Text(failure.error.rstrip()))
    if status.undelivered:
        console.print(
            f"{status.undelivered} events have not reached MLflow: orchestrator sync {status.sweep}"
        )


# Of a text that goes into a file; rich would break rows to fit 80 characters.
_FILE_WIDTH = 110


def show_reproduction(found: Reproduction) -> None:
    """Print our results beside the published ones, and where the rankings differ."""
    from orchestrator.report.reproduced import tables

    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = _FILE_WIDTH
    console.print(f"[bold]{found.preset}[/bold] ({'fast' if found.fast else 'full'} form)")
    console.print(Text(f"published: {found.source}"))
    for grid in tables(found):
        console.print()
        console.print(Text(grid.title, style="bold"))
        table = Table(box=None, pad_edge=False)
        for number, name in enumerate(grid.header):
            table.add_column(name, justify="right" if number else "left", no_wrap=not number)
        for row in grid.rows:
            table.add_row(*map(Text, row))
        console.print(table)
    console.print()
    console.print("[bold]where our ranking differs[/bold]")
    for sentence in found.differences:
        console.print(Text(sentence))
    for note in found.notes:
        console.print(Text(f"note: {note}", style="yellow"))


def show_listing(listing: Mapping[str, Sequence[Mapping[str, str]]]) -> None:
    """Print what there is; of components also where they come from."""
    from orchestrator.listing import short_source

    console = Console(highlight=False)
    for section, entries in listing.items():
        console.print(f"[bold]{section}[/bold]")
        table = Table(box=None, show_header=False, pad_edge=False)
        table.add_column(no_wrap=True, min_width=16)
        table.add_column(ratio=3)
        table.add_column(ratio=2, style="dim")
        for entry in entries:
            source = short_source(entry.get("source", ""))
            table.add_row(f"  {entry['name']}", Text(entry["summary"]), Text(source))
        console.print(table)


def show_checks(checks: Sequence[Check]) -> None:
    """Print what the doctor found."""
    console = Console(highlight=False)
    table = Table(box=None, show_header=False, pad_edge=False)
    for check in checks:
        mark = Text("ok", style="green") if check.good else Text("!!", style="bold red")
        table.add_row(mark, check.name, Text(check.found))
    console.print(table)
