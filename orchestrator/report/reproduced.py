"""The tables of a reproduction: scores, tests, cost, recall, speed of learning, selection.

Each is at most about a hundred characters wide, so that a terminal holds it; side by side they
would not fit.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.report.arms import ArmRow
from orchestrator.report.naming import count, describe_metric, percent, points, size
from orchestrator.report.parts import Comparison, TeacherRow, Verdict
from orchestrator.report.phrases import score_spread

# Epochs of a curve that are shown, and classes of which the recall is.
_MOST_EPOCHS = 10
_MOST_CLASSES = 6
_MEASURES = ("accuracy", "f1_macro", "f1_micro", "f1_weighted")

Rows = list[list[str]]


@dataclass(frozen=True)
class Line:
    """One line of the comparison: an arm, a control or a teacher.

    Attributes:
        name: Its name in the preset.
        kind: ``teacher``, ``student`` or ``ensemble``.
        ours: Mean of the compared metric, or None if it is not there.
        published: The paper's number as a share, or None.
        arm: Everything about an arm.
        teacher: Everything about a teacher.
        epoch_ratio: Seconds of an epoch, divided by those of the reference teacher.
        epochs_to_plain: Epochs until its mean dev macro F1 is where the plain student's is at
            its best; None if it never gets there.
    """

    name: str
    kind: str
    ours: float | None
    published: float | None
    arm: ArmRow | None = None
    teacher: TeacherRow | None = None
    epoch_ratio: float | None = None
    epochs_to_plain: int | None = None

    @property
    def means(self) -> dict[str, float]:
        """Every metric; of an arm the mean over its seeds."""
        if self.teacher is not None:
            return dict(self.teacher.metrics)
        metrics = {} if self.arm is None else self.arm.metrics
        return {name: value.mean for name, value in metrics.items()}


@dataclass(frozen=True)
class Reproduction:
    """Our results and the published ones.

    Attributes:
        preset: Its name.
        sweep: The sweep that holds the runs.
        fast: Whether the short form was run.
        metric: What is compared.
        source: The paper.
        notes: What differs between the two settings.
        lines: The comparison.
        differences: Where our ranking is not the paper's, a sentence each.
        reference: The teacher whose epochs the others' are compared with, or None.
    """

    preset: str
    sweep: str
    fast: bool
    metric: str
    source: str
    notes: tuple[str, ...]
    lines: tuple[Line, ...]
    differences: tuple[str, ...]
    reference: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return one JSON document."""
        document: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self)))
        return document


@dataclass(frozen=True)
class Grid:
    """A table as text; the first column names the row."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def tables(found: Reproduction) -> list[Grid]:
    """Return the tables that have something to say; columns without a value are left out."""
    grids = [
        _scores(found),
        _tests(found),
        _cost(found),
        _recall(found),
        _learning(found),
        _selection(found),
    ]
    return [grid for grid in grids if grid is not None]


def to_markdown(found: Reproduction) -> str:
    """Return the comparison as GitHub-flavoured Markdown."""
    form = "fast form" if found.fast else "full form"
    blocks = [
        f"# {found.preset} ({form})",
        f"Published: {found.source}. Compared by {describe_metric(found.metric)}, in per cent.",
    ]
    for grid in tables(found):
        lines = [grid.header, ["---"] * len(grid.header), *grid.rows]
        blocks.append(f"## {grid.title[0].upper()}{grid.title[1:]}")
        blocks.append("\n".join(f"| {' | '.join(line)} |" for line in lines))
    blocks.append("## Where our ranking differs")
    blocks.append("\n".join(f"- {sentence}" for sentence in found.differences))
    if found.notes:
        blocks.append("## What differs between the settings")
        blocks.append("\n".join(f"- {note}" for note in found.notes))
    return "\n\n".join(blocks) + "\n"


def _scores(found: Reproduction) -> Grid | None:
    """The compared metric beside the paper's, and the other measures.

    The gains over the plain student can be compared between two settings even where the scores
    cannot.
    """
    plain = next((line for line in found.lines if line.name == "plain"), None)
    split = found.metric.partition("_")[0]
    others = [name for name in _MEASURES if f"{split}_{name}" != found.metric]
    rows = []
    for line in found.lines:
        metrics = line.arm.metrics if line.arm else {}
        ours = metrics.get(found.metric)
        rows.append(
            [
                _title(line),
                percent(line.ours) if ours is None else score_spread(ours),
                percent(line.published, 2),
                _gain(line.ours, plain.ours if plain else None, line),
                _gain(line.published, plain.published if plain else None, line),
                *(_coarse_or(line, f"{split}_{name}") for name in others),
            ]
        )
    words = [describe_metric(name) for name in others]
    header = ["", "ours", "paper", "gain", "paper gain", *words]
    return _grid(f"{describe_metric(found.metric)}, in per cent", header, rows, keep=2)


def _tests(found: Reproduction) -> Grid | None:
    rows = [
        [_title(line), _tested(line.arm.against_plain), _tested(line.arm.against_average)]
        for line in found.lines
        if line.arm is not None
    ]
    title = "paired 95 % intervals of the difference in points, and the verdict if they decide"
    return _grid(title, ["", "over plain", "over average"], rows)


def _cost(found: Reproduction) -> Grid | None:
    rows = []
    for line in found.lines:
        means = line.means
        ratio = "-" if line.epoch_ratio is None else f"{line.epoch_ratio:.3g}"
        seconds = means.get("epoch_seconds")
        rows.append(
            [
                _title(line),
                count(means.get("parameters")),
                size(means.get("model_bytes")),
                f"{seconds:.1f}" if seconds else "-",
                ratio,
            ]
        )
    header = ["", "parameters", "weights", "s/epoch", f"of {found.reference}'s"]
    return _grid("what it costs; weights only, without the optimizer's state", header, rows)


def _recall(found: Reproduction) -> Grid | None:
    arms = [line.arm for line in found.lines if line.arm is not None]
    classes = next((list(arm.recall) for arm in arms if arm.recall), [])
    shown = classes if len(classes) <= _MOST_CLASSES else []
    rows = [
        [
            arm.name,
            *(percent((arm.recall or {}).get(name)) for name in shown),
            percent(arm.retention),
        ]
        for arm in arms
    ]
    title = "recall by class, and agreement with the students that taught it, in per cent"
    return _grid(title, ["", *shown, "kept"], rows)


def _learning(found: Reproduction) -> Grid | None:
    curves = {line.name: line.arm.curve for line in found.lines if line.arm and line.arm.curve}
    shown = _spaced(max(map(len, curves.values()), default=0), _MOST_EPOCHS)
    rows = [
        [
            line.name,
            "-" if line.epochs_to_plain is None else str(line.epochs_to_plain),
            *(percent(curves[line.name][e]) if e < len(curves[line.name]) else "-" for e in shown),
        ]
        for line in found.lines
        if line.name in curves
    ]
    header = ["", "epochs to plain's best", *(str(epoch + 1) for epoch in shown)]
    return _grid("dev macro F1 by epoch, mean over the seeds, in per cent", header, rows)


def _selection(found: Reproduction) -> Grid | None:
    rows, levels = [], list[str]()
    for arm in (line.arm for line in found.lines if line.arm and line.arm.selection):
        hardness = arm.by_difficulty or {}
        levels = levels or list(hardness)
        for teacher, rate in (arm.selection or {}).items():
            shares = [hardness.get(level, {}).get(teacher) for level in levels]
            cells = ["-" if share is None else f"{share:.2f}" for share in shares]
            rows.append([f"{arm.name}: {teacher}", f"{rate:.2f}", *cells])
    title = (
        "how often a teacher is selected: in the last epoch, and by thirds of the training rows, "
        "sorted by the teachers' mean cross-entropy"
    )
    return _grid(title, ["", "all", *levels], rows)


def _grid(title: str, header: Sequence[str], rows: Rows, keep: int = 1) -> Grid | None:
    """Return a table without its empty columns, or None if nothing but names is left.

    Args:
        title: Its title.
        header: The columns.
        rows: As long as the header each.
        keep: Columns that stay even if they are empty.
    """
    used = [i for i in range(len(header)) if i < keep or any(row[i] != "-" for row in rows)]
    if len(used) < 2 or not rows:
        return None
    return Grid(
        title,
        tuple(header[i] for i in used),
        tuple(tuple(row[i] for i in used) for row in rows),
    )


def _title(line: Line) -> str:
    return line.name if line.kind == "student" else f"{line.name} ({line.kind})"


def _coarse_or(line: Line, metric: str) -> str:
    # Scores over superclasses cannot stand beside scores over classes.
    coarse = line.teacher is not None and line.teacher.coarse
    return "-" if coarse else percent(line.means.get(metric))


def _gain(value: float | None, plain: float | None, line: Line) -> str:
    if value is None or plain is None or line.kind == "teacher" or line.name == "plain":
        return "-"
    return points(value - plain, 2)


def _tested(comparison: Comparison | None) -> str:
    if comparison is None or comparison.interval is None:
        return "-"
    interval = comparison.interval
    # An interval without a word decides nothing.
    decided = comparison.verdict is not Verdict.INCONCLUSIVE
    word = f" {comparison.verdict}" if decided else ""
    return f"{points(interval.low)} to {points(interval.high)}{word}"


def _spaced(length: int, most: int) -> list[int]:
    """Return at most ``most`` positions below ``length``, evenly spaced, with both ends."""
    if length <= most:
        return list(range(length))
    return [round(i * (length - 1) / (most - 1)) for i in range(most)]
