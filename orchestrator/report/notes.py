"""Honest notes: what a reader must know before believing the numbers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from orchestrator.exporting.seen import seen_sentence
from orchestrator.records import TrialState
from orchestrator.report import naming
from orchestrator.report.document import Report
from orchestrator.report.naming import percent, points
from orchestrator.report.ratio import PREFIX
from orchestrator.report.verdict import MIN_SEEDS

# A teacher this close to the plain student makes the ratio a quotient of noise.
_NARROW = 0.02
# The best of many trials shrinks when trained again; below this it is not worth a line.
_SHRINKAGE = 0.005


def collect(report: Report, missing: Sequence[str]) -> list[str]:
    """Return the notes of a report, most important first.

    Args:
        report: The report without notes.
        missing: Predictions that could not be read.
    """
    groups = (
        _about_evidence(report, missing),
        _about_floor(report),
        _about_controls(report),
        _about_teachers(report),
        _about_search(report),
    )
    return [note for group in groups for note in group]


def _about_evidence(report: Report, missing: Sequence[str]) -> Iterator[str]:
    chosen = report.chosen
    if chosen is None:
        yield (
            "No candidate has been confirmed: the numbers are single runs on dev, the split that "
            "also chose the best of them. A claim needs the confirm stage."
        )
    elif report.comparisons[0].split == "dev":
        yield (
            "There is no test split: the verdict is on dev, where the candidate was also chosen, "
            "so it is optimistic. Set data.test."
        )
    if chosen is not None and len(chosen.seeds) < MIN_SEEDS:
        seeds = "One seed" if len(chosen.seeds) == 1 else f"{len(chosen.seeds)} seeds"
        yield (
            f"{seeds} only: how much training varies is barely known, so no claim is made. "
            f"Set confirm.seeds to {MIN_SEEDS} or more."
        )
    for row in report.confirm:
        if row.failed:
            total = row.failed + len(row.keys)
            yield f"{row.failed} of {total} confirm trials of {row.role} ({row.method}) failed."
    if missing:
        listed = ", ".join(missing[:5]) + (" and more" if len(missing) > 5 else "")
        yield (
            f"Predictions are missing in the store: {listed}. "
            "The same sweep command, started again, makes them."
        )


def _about_floor(report: Report) -> Iterator[str]:
    score = _final_score(report)
    if score is None:
        return
    name, value = score
    metric = naming.describe_metric(name)
    floor = _floor(report, name)
    if floor is not None and value < floor:
        yield (
            f"The student is below the TF-IDF floor: {percent(value)} against {percent(floor)} "
            f"{metric}. A linear model on word counts is smaller, faster and better here."
        )
    for row in report.teachers:
        if floor is not None and name in row.metrics and row.metrics[name] < floor:
            yield (
                f"Teacher {row.name} ({percent(row.metrics[name])}) is below the TF-IDF floor "
                f"({percent(floor)}) in {metric}."
            )
    majority = report.data.get("majority")
    accuracy = report.best.metrics.get("val_accuracy") if report.best else None
    if majority is not None and accuracy is not None and accuracy <= majority:
        yield (
            f"The best student's dev accuracy ({percent(accuracy)}) is not above that of always "
            f"answering the biggest class ({percent(majority)})."
        )


def _about_controls(report: Report) -> Iterator[str]:
    for comparison in report.comparisons:
        interval = comparison.interval
        other = naming.describe_role(comparison.control)
        if comparison.identical:
            yield f"The candidate's predictions are identical to those of {other}."
        elif interval is not None and interval.low <= 0.0 <= interval.high:
            yield f"The gap to {other} ({points(interval.estimate)} points) is within noise."
    best = report.best
    if best is None or naming.is_control(best.role):
        return
    ahead = [
        naming.describe_role(row.role)
        for row in sorted(report.controls, key=lambda row: row.rank or 0)
        if row.rank and best.rank and row.rank < best.rank
    ]
    if ahead:
        others = "".join(f", and so is {name}" for name in ahead[1:])
        yield (
            f"On dev {ahead[0]} is ahead of everything the search found{others}: "
            "the search has not paid yet."
        )


def _about_teachers(report: Report) -> Iterator[str]:
    found = report.distillation
    if found.reason is not None:
        yield f"No distillation ratio: {found.reason}."
    elif found.teacher is not None and found.plain is not None:
        gap = found.teacher - found.plain
        if gap < _NARROW:
            yield (
                f"The teacher is only {100 * gap:.1f} points ahead of the plain student: "
                "the distillation ratio divides by that and is unstable."
            )
    for row in report.teachers:
        seen = seen_sentence(row.name, row.metrics, report.data.get("rows") or {})
        if seen is not None:
            yield seen
        if row.state is TrialState.FAILED:
            yield f"Teacher {row.name} failed: {row.error}."


def _about_search(report: Report) -> Iterator[str]:
    rows = [*report.controls, *report.students]
    failed = sum(row.state is TrialState.FAILED for row in rows)
    pruned = sum(row.state is TrialState.PRUNED for row in rows)
    running = sum(row.state is TrialState.RUNNING for row in rows)
    if failed:
        yield f"{failed} of {len(rows)} student trials failed."
    if running:
        yield f"{running} of {len(rows)} student trials have not finished: start the sweep again."
    if pruned:
        yield (
            f"{pruned} of {len(rows)} student trials stopped early; means per method are of the "
            "others and therefore flatter each method."
        )
    yield from _about_shrinkage(report)


def _about_shrinkage(report: Report) -> Iterator[str]:
    """Compare what the chosen configuration scored in the search and over its own seeds."""
    name, direction = report.objective
    chosen = report.chosen
    if chosen is None or direction != "max" or name not in chosen.metrics:
        return
    if naming.decision_metric(name) != name.removeprefix("val_"):
        return
    searched = [row for row in report.students if row.rank and row.key == chosen.group]
    for row in searched[:1]:
        before, after = row.metrics[name], chosen.metrics[name].mean
        if before - after > _SHRINKAGE:
            yield (
                f"The candidate's search score was partly luck: {percent(before)} "
                f"{naming.describe_metric(name)} there, {percent(after)} over fresh seeds."
            )


def _final_score(report: Report) -> tuple[str, float] | None:
    """Return the name and value of the student's score that counts most."""
    found = report.distillation
    if found.student is not None:
        return PREFIX[found.split] + found.metric, found.student
    name = PREFIX["dev"] + found.metric
    if report.best is not None and name in report.best.metrics:
        return name, report.best.metrics[name]
    return None


def _floor(report: Report, name: str) -> float | None:
    """Return the floor of a metric; dev metrics may be recorded without their prefix."""
    value = report.floor.get(name)
    return value if value is not None else _unprefixed(report, name)


def _unprefixed(report: Report, name: str) -> float | None:
    return report.floor.get(name.removeprefix("val_")) if name.startswith("val_") else None
