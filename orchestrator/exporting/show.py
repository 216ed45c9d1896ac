"""How exports and answers are shown to people."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from orchestrator.exporting.folder import SCRIPT
from orchestrator.report.naming import percent, size

if TYPE_CHECKING:
    from orchestrator.export import Exported
    from orchestrator.predict import Answer
    from orchestrator.predict import Progress as Hear

_FORMS = ("int8", "fp32", "torch", "teacher")


def show_export(exported: Exported) -> None:
    """Print what was written, how equal it is, how big and how fast."""
    facts = exported.facts
    console = Console(highlight=False)
    console.print(Text(f"{facts.sweep}: {facts.method}"))
    table = Table(box=None, pad_edge=False)
    table.add_column("")
    for column in ("size", "dev F1", "difference", "same label"):
        table.add_column(column, justify="right")
    for batch in facts.latency:
        table.add_column(f"ms at {batch}", justify="right")
    weights = facts.weights()
    for form in _FORMS:
        if form not in weights:
            continue
        found = facts.equality.get(form)
        cells = ["", "", ""]
        if found is not None:
            agreement = f"{percent(found.label_agreement, 2)} %"
            cells = [percent(found.f1_macro), f"{found.max_logit_difference:.2g}", agreement]
        elif form == "torch":
            cells[0] = percent(facts.trained["f1_macro"])
        times = [facts.latency[batch][form] for batch in facts.latency]
        shown = [f"{time.p50_ms:.3g} / {time.p95_ms:.3g}" for time in times]
        table.add_row(form, size(weights[form]), *cells, *shown)
    console.print(table)
    console.print("ms at N: p50 / p95 of a batch of N on one thread; difference: of a logit on dev")
    if facts.teacher is not None:
        ratios = facts.ratios()
        faster = ", ".join(f"{r['p50']:.3g}x at batch {b}" for b, r in ratios["faster"].items())
        console.print(
            f"int8 against teacher {facts.teacher.name}: {ratios['smaller']:.3g}x smaller, "
            f"faster {faster}"
        )
    if exported.registered is not None:
        found_at = exported.registered
        console.print(f"registered as {found_at.uri} (version {found_at.version})")
    console.print(f"written to {exported.folder}")
    console.print()
    _show_next(exported)


def _show_next(exported: Exported) -> None:
    """Print the commands to go on with, each on a line of its own that can be copied."""
    console = Console(highlight=False, soft_wrap=True)
    console.print("Next")
    console.print(Text(f'  ask    orchestrator predict --model {exported.folder} "some text"'))
    console.print(Text(f'  alone  python {exported.folder / SCRIPT} "some text"'))
    if exported.registered is not None:
        console.print(
            Text(
                f"  serve  MLFLOW_TRACKING_URI={exported.registered.tracking_uri} "
                f"mlflow models serve -m {exported.registered.uri} --env-manager local"
            )
        )


def show_answers(answers: Sequence[Answer]) -> None:
    """Print one line for each text."""
    console = Console(highlight=False, soft_wrap=True)
    for one in answers:
        console.print(Text(f"{one.label}\t{one.probability:.3f}\t{one.text}"))


@contextmanager
def progress_bar() -> Iterator[Hear]:
    """Show a bar on stderr, if that is a terminal, and yield what moves it."""
    console = Console(stderr=True)
    bar = Progress(
        BarColumn(),
        TextColumn("{task.fields[texts]:,} texts, {task.fields[rate]:,.0f}/s"),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    with bar:
        task = bar.add_task("", total=1.0, texts=0, rate=0.0)

        def hear(share: float, texts: int) -> None:
            elapsed = bar.tasks[0].elapsed or 0.0
            rate = texts / elapsed if elapsed else 0.0
            bar.update(task, completed=share, texts=texts, rate=rate)

        yield hear
