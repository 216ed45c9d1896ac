"""The distillation ratio: how much of the teacher's advantage the student kept."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.records import TrialState
from orchestrator.report.naming import PLAIN, percent
from orchestrator.report.parts import ConfirmRow, Distillation, TeacherRow, TrialRow

PREFIX = {"test": "test_", "dev": "val_"}


def distillation(
    chosen: ConfirmRow | None,
    plain_row: ConfirmRow | None,
    best: TrialRow | None,
    controls: Sequence[TrialRow],
    teachers: Sequence[TeacherRow],
    metric: str,
) -> Distillation:
    """Return the ratio on test from the confirm means, else on dev.

    On dev the confirm means are preferred to the search's single runs, whose best is the luckiest.
    The teacher is the best single one on the same metric and split.

    Args:
        chosen: The candidate the verdict is about.
        plain_row: The confirmed plain student.
        best: The best trial of the search.
        controls: Rows of the control trials.
        teachers: Rows of the teachers.
        metric: Without prefix, e.g. ``f1_macro``.
    """
    for split in ("test", "dev"):
        name = PREFIX[split] + metric
        if chosen and plain_row and name in chosen.metrics and name in plain_row.metrics:
            student, plain = chosen.metrics[name].mean, plain_row.metrics[name].mean
            return _ratio(metric, split, student, plain, teachers)
    name = PREFIX["dev"] + metric
    plain_trial = next((row for row in controls if row.role == PLAIN and name in row.metrics), None)
    if best is None or name not in best.metrics:
        return Distillation(None, metric, "dev", reason="no distilled student is complete")
    if plain_trial is None or plain_trial.state is not TrialState.COMPLETE:
        return Distillation(None, metric, "dev", reason="the plain student is not complete")
    return _ratio(metric, "dev", best.metrics[name], plain_trial.metrics[name], teachers)


def _ratio(
    metric: str, split: str, student: float, plain: float, teachers: Sequence[TeacherRow]
) -> Distillation:
    name = PREFIX[split] + metric
    scored = [row for row in teachers if name in row.metrics and not row.coarse]
    if not scored:
        reason = f"no teacher has been measured on {split}"
        return Distillation(None, metric, split, student, plain, reason=reason)
    best = max(scored, key=lambda row: row.metrics[name])
    teacher = best.metrics[name]
    if teacher <= plain:
        reason = (
            f"the best teacher {best.name} ({percent(teacher)}) is not better than the plain "
            f"student ({percent(plain)}): there is no advantage to keep"
        )
        return Distillation(None, metric, split, student, plain, teacher, best.name, reason)
    ratio = (student - plain) / (teacher - plain)
    return Distillation(ratio, metric, split, student, plain, teacher, best.name)
