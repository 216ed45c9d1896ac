"""The live view: what a terminal shows while a sweep runs."""

from __future__ import annotations

from rich.console import ConsoleDimensions, Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from orchestrator.records import Stage, TrialState
from orchestrator.tracking.lines import duration, reason
from orchestrator.tracking.progress import Progress

_MARKS = {TrialState.PRUNED: "pruned", TrialState.FAILED: "failed"}


def render(progress: Progress, lag: str, size: ConsoleDimensions) -> RenderableType:
    """Return the view: heading, stages, running trials, best so far, MLflow.

    Args:
        progress: How far the sweep is.
        lag: The state of the way to MLflow; empty: not shown.
        size: Of the terminal; narrow ones lose the columns that matter least, low ones the
            running trials that do not fit.
    """
    room = max(2, size.height - len(progress.stages) - len(progress.estimates) - 8)
    parts: list[RenderableType] = [_heading(progress), Text(), _stages(progress, size.width)]
    if progress.running:
        parts += [Text(), _running(progress, room)]
    footer = _footer(progress, lag)
    if footer.row_count:
        parts += [Text(), footer]
    return Group(*parts)


def clock_time(seconds: float) -> str:
    """Return ``4:07`` or ``1:04:07``."""
    whole = int(seconds)
    hours, minutes = whole // 3600, whole % 3600 // 60
    if hours:
        return f"{hours}:{minutes:02d}:{whole % 60:02d}"
    return f"{minutes}:{whole % 60:02d}"


def _heading(progress: Progress) -> Table:
    grid = Table.grid(expand=True)
    grid.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
    grid.add_column(justify="right", no_wrap=True)
    times = Text(f"{clock_time(progress.elapsed())} elapsed", style="dim")
    left = progress.eta()
    if progress.state is not None:
        word = "interrupted" if progress.state is TrialState.LOST else progress.state.value
        times = Text(f"{word} after {duration(progress.elapsed())}", style="bold")
    elif left is not None:
        times.append(" · ").append(f"{duration(left)} left", style="not dim bold")
    grid.add_row(Text.assemble(("sweep ", "dim"), (progress.sweep, "bold cyan")), times)
    return grid


def _stages(progress: Progress, width: int) -> Table:
    grid = Table.grid(expand=True, padding=(0, 2, 0, 0))
    grid.add_column(no_wrap=True, min_width=8)
    grid.add_column(ratio=1, min_width=10)
    grid.add_column(justify="right", no_wrap=True)
    if width >= 70:
        grid.add_column(no_wrap=True)
    grid.add_column(justify="right", no_wrap=True)
    grid.add_column(justify="right", no_wrap=True, min_width=11)
    for stage in progress.stages:
        row = _stage_row(progress, stage)
        grid.add_row(*(row if width >= 70 else row[:3] + row[4:]))
    for name, seconds in progress.waiting():
        cells: list[RenderableType] = [
            Text(name, style="dim"),
            ProgressBar(total=1, completed=0),
            Text("waiting", style="dim"),
            Text(),
            Text(),
            Text(f"~ {duration(seconds)}", style="dim"),
        ]
        grid.add_row(*(cells if width >= 70 else cells[:3] + cells[4:]))
    return grid


def _stage_row(progress: Progress, stage: Stage) -> list[RenderableType]:
    view = progress.stages[stage]
    counts = Text()
    if view.cached:
        counts.append(f"{view.cached} cached ", style="dim")
    for state, word in _MARKS.items():
        if view.states[state]:
            style = "bold red" if state is TrialState.FAILED else "dim"
            counts.append(f"{view.states[state]} {word} ", style=style)
    counts.rstrip()
    left = progress.stage_eta(stage)
    if view.ended is not None:
        ending = Text("done", style="green")
    else:
        ending = Text(f"{duration(left)} left" if left is not None else "")
    return [
        Text(stage.value, style="" if view.ended is not None else "bold"),
        ProgressBar(
            total=max(1, view.total),
            completed=view.done if view.total else 1,
            complete_style="cyan",
            finished_style="green",
        ),
        Text(f"{view.done}/{view.total}"),
        counts,
        Text(clock_time(progress.stage_elapsed(stage)), style="dim"),
        ending,
    ]


def _running(progress: Progress, room: int) -> Table:
    table = Table(box=None, expand=True, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    table.add_column("running", ratio=1, no_wrap=True, overflow="ellipsis")
    table.add_column("epoch", justify="right", no_wrap=True)
    table.add_column(progress.objective, justify="right", no_wrap=True)
    trials = list(progress.running.values())
    shown = trials if len(trials) <= room else trials[: room - 1]
    for trial in shown:
        epoch = "-" if trial.epoch is None else str(trial.epoch)
        if trial.epochs:
            epoch += f"/{trial.epochs}"
        name = Text(trial.name)
        if trial.restarts:
            name.append(" (started again)", style="yellow")
        value = "-" if trial.value is None else f"{trial.value:.4f}"
        table.add_row(name, epoch, value)
    if len(shown) < len(trials):
        table.add_row(Text(f"and {len(trials) - len(shown)} more", style="dim"), "", "")
    return table


def _footer(progress: Progress, lag: str) -> Table:
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    best = None if progress.current is None else progress.stages[progress.current]
    if best is not None and best.best is not None:
        value = Text.assemble((f"{best.best:.4f}", "bold green"), f"  {best.best_name}")
        grid.add_row(Text("best", style="dim"), value)
    if progress.failure is not None:
        text = Text(reason(progress.failure.error), overflow="ellipsis")
        grid.add_row(Text("failed", style="red"), text)
    if lag:
        style = "yellow" if "behind" in lag else "dim"
        grid.add_row(Text("MLflow", style="dim"), Text(lag, style=style))
    return grid
