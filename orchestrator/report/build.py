"""``build_report``: from a sweep's records and its store to the report."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from orchestrator.records import Stage, SweepRecord, TrialRecord
from orchestrator.report import cost, diagnosis, leaderboard, naming, notes, pareto, ratio, verdict
from orchestrator.report.document import (
    Comparison,
    ConfirmRow,
    Diagnosis,
    Report,
    TrialRow,
    Verdict,
)
from orchestrator.report.predictions import Arm, Reader, common_ids
from trainables.store import Store


@dataclasses.dataclass(frozen=True)
class _Evidence:
    """The predictions a verdict rests on: the candidate first, then the controls."""

    split: str
    method: str
    arms: tuple[Arm, ...]
    wanted: tuple[str, ...]


def build_report(record: SweepRecord, store: Store) -> Report:
    """Say what came out of a sweep, as far as it got.

    Reads the predictions of the chosen candidate, the controls and the teachers only, so the cost
    hardly grows with the number of trials. Missing or damaged predictions become notes.

    Args:
        record: Everything the ledger knows; needs neither Ray nor MLflow.
        store: Where the predictions lie.
    """
    trials = leaderboard.distinct(record.of(Stage.STUDENTS))
    tradeoff = pareto.analyse(trials, record.objective, _objectives(record))
    rows = leaderboard.student_rows(trials, record.objective, tradeoff.front)
    controls = tuple(row for row in rows if naming.is_control(row.role))
    best = leaderboard.best_row(rows)
    teachers = tuple(leaderboard.teacher_rows(record))
    confirmed = tuple(leaderboard.confirm_rows(record))
    metric = naming.decision_metric(record.objective[0])

    reader = Reader(store)
    evidence = _gather(reader, record, confirmed, best, controls)
    comparisons = _compare(evidence, metric)
    found = _diagnose(reader, record, evidence)
    chosen = next((row for row in confirmed if row.chosen), None)
    plain = next((row for row in confirmed if row.role == naming.PLAIN), None)
    headline = comparisons[0]
    report = Report(
        sweep=record.name,
        objective=record.objective,
        data=dict(record.data),
        floor=dict(record.data.get("tfidf") or {}),
        teachers=teachers,
        controls=controls,
        students=tuple(row for row in rows if not naming.is_control(row.role)),
        best=best,
        confirm=confirmed,
        distillation=ratio.distillation(chosen, plain, best, controls, teachers, metric),
        verdict=headline.verdict,
        sentence=headline.sentence,
        comparisons=comparisons,
        per_method=tuple(leaderboard.method_rows(trials, record.objective)),
        diagnosis=found,
        pareto=tradeoff,
        cost=cost.account(record, trials + leaderboard.distinct(record.of(Stage.CONFIRM))),
        notes=(),
        history={trial.key: trial.history for trial in trials if trial.history},
    )
    return dataclasses.replace(report, notes=tuple(notes.collect(report, reader.missing)))


def _objectives(record: SweepRecord) -> dict[str, str]:
    search: Any = record.config.get("search") or {}
    return dict(search.get("objectives") or {})


def _gather(
    reader: Reader,
    record: SweepRecord,
    confirmed: Sequence[ConfirmRow],
    best: TrialRow | None,
    controls: Sequence[TrialRow],
) -> _Evidence:
    """Read what the verdict can rest on: confirmed on test, confirmed on dev, or single runs."""
    chosen = next((row for row in confirmed if row.chosen), None)
    name, direction = record.objective
    sign = 1.0 if direction == "max" else -1.0
    if chosen is not None:
        plain = next((row for row in confirmed if row.role == naming.PLAIN and row.keys), None)
        other = leaderboard.best_other_control(confirmed, name, sign)
        rows = [row for row in (chosen, plain, other) if row is not None]
        split = "test" if any(key.startswith("test_") for key in chosen.metrics) else "dev"
        arms = [arm for row in rows if (arm := reader.confirmed(row, split)) is not None]
        return _evidence(split, chosen.method, arms, [row.role for row in rows])
    if best is None:
        return _Evidence("dev", "", (), ())
    ranked = sorted((row for row in controls if row.rank), key=lambda row: row.rank or 0)
    plain_row = [row for row in ranked if row.role == naming.PLAIN][:1]
    other_row = [row for row in ranked if row.role != naming.PLAIN and row.key != best.key][:1]
    seeds = {trial.key: trial.seed for trial in record.of(Stage.STUDENTS)}
    arms = []
    for row in [best, *plain_row, *other_row]:
        role = naming.CANDIDATE if row is best else row.role
        arm = reader.searched(row.key, role, seeds[row.key])
        arms += [arm] if arm is not None else []
    roles = [naming.CANDIDATE, *(row.role for row in plain_row + other_row)]
    return _evidence("dev", best.method, arms, roles)


def _evidence(split: str, method: str, arms: Sequence[Arm], wanted: Sequence[str]) -> _Evidence:
    if not arms or arms[0].role != naming.CANDIDATE:
        return _Evidence(split, method, (), tuple(wanted))
    ids = common_ids(arms)
    return _Evidence(split, method, tuple(arm.on(ids) for arm in arms), tuple(wanted))


def _compare(evidence: _Evidence, metric: str) -> tuple[Comparison, ...]:
    """Compare the candidate with the plain student first, then with the best other control."""
    split = evidence.split
    if not evidence.wanted:
        reason = "no distilled student is complete"
        return (verdict.unknown(naming.PLAIN, metric, split, reason),)
    available = {arm.role: arm for arm in evidence.arms}
    candidate = available.get(naming.CANDIDATE)
    controls = [role for role in evidence.wanted if role != naming.CANDIDATE]
    if naming.PLAIN not in controls:
        controls.insert(0, naming.PLAIN)
    result = []
    for role in controls:
        control = available.get(role)
        if candidate is None or control is None:
            reason = "it is not complete"
            if role in evidence.wanted:
                reason = f"predictions on {split} are missing in the store"
            result.append(verdict.unknown(role, metric, split, reason))
        else:
            result.append(verdict.compare(candidate, control, metric, split, evidence.method))
    return tuple(result)


def _diagnose(reader: Reader, record: SweepRecord, evidence: _Evidence) -> Diagnosis:
    if not evidence.arms:
        return Diagnosis(evidence.split)
    outputs = record.of(Stage.OUTPUTS)
    names = tuple(record.data.get("classes", ()))
    teachers = reader.teachers(outputs, evidence.split)
    found = diagnosis.diagnose(evidence.arms, teachers, names, evidence.split)
    suspects = _suspects(reader, outputs, evidence, teachers, record)
    return dataclasses.replace(
        found, suspects=suspects[: diagnosis.MOST_SUSPECTS], n_suspects=len(suspects)
    )


def _suspects(
    reader: Reader,
    outputs: Sequence[TrialRecord],
    evidence: _Evidence,
    teachers: Any,
    record: SweepRecord,
) -> tuple[int, ...]:
    """Look for mislabelled examples on dev: what is found on test must not be mended."""
    if evidence.split == "dev":
        model, on_dev = evidence.arms[0].models[0], teachers
    else:
        keys = [trial.key for trial in record.of(Stage.STUDENTS)]
        model, on_dev = reader.any_dev(keys), reader.teachers(outputs, "dev")
    if model is None or model.targets is None:
        return ()
    return diagnosis.suspects(on_dev, model.ids, model.targets)


__all__ = ["Verdict", "build_report"]
