"""Rows of the report from records: distinct trials, ranks, teachers, confirmed configurations."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence

from orchestrator.records import Stage, SweepRecord, TrialRecord, TrialState
from orchestrator.report import naming
from orchestrator.report.parts import ConfirmRow, MethodRow, TeacherRow, TrialRow
from orchestrator.report.statistics import spread

# Which record of a key counts: a result outweighs an attempt that was lost or is under way.
_WEIGHT = {
    TrialState.COMPLETE: 3,
    TrialState.PRUNED: 2,
    TrialState.FAILED: 1,
    TrialState.RUNNING: 0,
}


def distinct(trials: Iterable[TrialRecord]) -> list[TrialRecord]:
    """Return one record for each key, in the order of first appearance, without bookkeeping."""
    chosen: dict[str, TrialRecord] = {}
    for trial in trials:
        if trial.state not in _WEIGHT:
            continue
        known = chosen.get(trial.key)
        if known is None or _WEIGHT[trial.state] >= _WEIGHT[known.state]:
            chosen[trial.key] = trial
    return list(chosen.values())


def student_rows(
    trials: Sequence[TrialRecord], objective: tuple[str, str], front: Sequence[str]
) -> list[TrialRow]:
    """Return a row for each distinct trial of the student stage, complete ones ranked.

    Args:
        trials: Distinct trials.
        objective: Name and direction of the metric that ranks.
        front: Keys on the Pareto front.
    """
    name, direction = objective
    sign = -1.0 if direction == "max" else 1.0
    scored = [trial for trial in trials if _score(trial, name) is not None]
    scored.sort(key=lambda trial: (sign * trial.metrics[name], _parameters(trial)))
    ranks = {trial.key: place for place, trial in enumerate(scored, start=1)}
    on_front = set(front)
    return [
        TrialRow(
            key=trial.key,
            role=trial.role,
            state=trial.state,
            method=naming.describe_method(trial),
            params=dict(trial.params),
            metrics=dict(trial.metrics),
            teachers=naming.teachers_of(trial),
            epochs=len(trial.history),
            seconds=trial.seconds,
            rank=ranks.get(trial.key),
            pareto=trial.key in on_front,
            error=_last_line(trial.error),
        )
        for trial in trials
    ]


def best_row(rows: Sequence[TrialRow]) -> TrialRow | None:
    """Return the best distilled student: searched or default, else the best control with one."""
    ranked = sorted((row for row in rows if row.rank), key=lambda row: row.rank or 0)
    for searched in (True, False):
        for row in ranked:
            if row.role != naming.PLAIN and naming.is_control(row.role) is not searched:
                return row
    return None


def teacher_rows(record: SweepRecord) -> list[TeacherRow]:
    """Return a row for each teacher with its metrics of every split, best on dev first."""
    measured: dict[str, dict[str, float]] = {}
    for trial in record.of(Stage.OUTPUTS):
        if trial.state is TrialState.COMPLETE and is_final(trial):
            scores = {k: v for k, v in trial.metrics.items() if k.startswith(("val_", "test_"))}
            measured.setdefault(trial.role, {}).update(scores)
    trained = distinct(record.of(Stage.TEACHERS))
    by_name = {trial.role: trial for trial in trained if not trial.spec.get("fold")}
    rows = [
        TeacherRow(
            name=name,
            key=trial.key,
            state=trial.state,
            metrics={**measured.get(name, {}), **trial.metrics},
            seconds=trial.seconds,
            error=_last_line(trial.error),
            coarse=bool(trial.spec.get("groups")),
        )
        for name, trial in by_name.items()
    ]
    metric = "val_" + naming.decision_metric(record.objective[0])
    return sorted(rows, key=lambda row: -row.metrics.get(metric, -math.inf))


def is_final(trial: TrialRecord) -> bool:
    """Tell whether outputs are those of a trained teacher, not of one on its way."""
    return bool(trial.spec.get("anchor", 1.0) == 1.0)


def confirm_rows(record: SweepRecord) -> list[ConfirmRow]:
    """Return a row for each confirmed configuration; the candidate best on dev is chosen.

    The choice among the top k looks at dev scores over the confirm seeds only; were it made on
    test, the verdict on that test split would be too good.
    """
    groups: dict[str, list[TrialRecord]] = {}
    for trial in distinct(record.of(Stage.CONFIRM)):
        groups.setdefault(trial.group or f"{trial.role} {sorted(trial.params.items())}", []).append(
            trial
        )
    rows = [_confirm_row(group, trials) for group, trials in groups.items()]
    searched = {trial.key: trial.metrics for trial in record.of(Stage.STUDENTS)}
    name, direction = record.objective
    sign = 1.0 if direction == "max" else -1.0

    def on_dev(row: ConfirmRow) -> float:
        if not row.keys:
            return -math.inf
        if name in row.metrics:
            return sign * row.metrics[name].mean
        earlier = searched.get(row.group, {})
        return sign * earlier[name] if name in earlier else -math.inf

    rows.sort(key=lambda row: (row.role != naming.CANDIDATE, -on_dev(row)))
    return [
        dataclasses.replace(
            row, chosen=place == 0 and row.role == naming.CANDIDATE and bool(row.keys)
        )
        for place, row in enumerate(rows)
    ]


def best_other_control(rows: Sequence[ConfirmRow], metric: str, sign: float) -> ConfirmRow | None:
    """Return the control with teachers that is best on dev (``metric`` is a dev metric)."""
    others = [row for row in rows if naming.is_control(row.role) and row.role != naming.PLAIN]
    scored = [row for row in others if row.keys and metric in row.metrics]
    return max(scored, key=lambda row: sign * row.metrics[metric].mean, default=None)


def method_rows(trials: Sequence[TrialRecord], objective: tuple[str, str]) -> list[MethodRow]:
    """Return what each combination of components reached in the search, best mean first."""
    name, direction = objective
    best = max if direction == "max" else min
    groups: dict[str, list[TrialRecord]] = {}
    for trial in trials:
        groups.setdefault(naming.method_name(trial), []).append(trial)
    rows = []
    for method, members in groups.items():
        scores = [score for trial in members if (score := _score(trial, name)) is not None]
        rows.append(
            MethodRow(
                method=method,
                score=spread(scores) if scores else None,
                best=best(scores) if scores else None,
                complete=len(scores),
                pruned=_count(members, TrialState.PRUNED),
                failed=_count(members, TrialState.FAILED),
            )
        )
    sign = -1.0 if direction == "max" else 1.0
    return sorted(rows, key=lambda row: sign * row.score.mean if row.score else math.inf)


def _confirm_row(group: str, trials: Sequence[TrialRecord]) -> ConfirmRow:
    complete = sorted(
        (trial for trial in trials if trial.state is TrialState.COMPLETE),
        key=lambda trial: trial.seed,
    )
    names = dict.fromkeys(name for trial in complete for name in trial.metrics)
    return ConfirmRow(
        group=group,
        role=trials[0].role,
        method=naming.describe_method(trials[0]),
        params={name: value for name, value in trials[0].params.items() if name != "seed"},
        keys=tuple(trial.key for trial in complete),
        seeds=tuple(trial.seed for trial in complete),
        failed=_count(trials, TrialState.FAILED),
        metrics={name: spread(_values(complete, name)) for name in names},
    )


def _values(trials: Sequence[TrialRecord], name: str) -> list[float]:
    return [trial.metrics[name] for trial in trials if name in trial.metrics]


def _score(trial: TrialRecord, name: str) -> float | None:
    value = trial.metrics.get(name)
    if trial.state is not TrialState.COMPLETE or value is None or not math.isfinite(value):
        return None
    return value


def _parameters(trial: TrialRecord) -> float:
    metrics: Mapping[str, float] = trial.metrics
    return metrics.get("parameters", math.inf)


def _count(trials: Iterable[TrialRecord], state: TrialState) -> int:
    return sum(trial.state is state for trial in trials)


def _last_line(error: str | None) -> str | None:
    lines = (error or "").strip().splitlines()
    return lines[-1] if lines else None
