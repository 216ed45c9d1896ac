"""``build_report``: from a sweep's records and its store to the report."""

from __future__ import annotations

import dataclasses
from typing import Any

from orchestrator.records import Stage, SweepRecord
from orchestrator.report import cost, evidence, leaderboard, naming, notes, pareto, ratio
from orchestrator.report.document import Report
from orchestrator.report.predictions import Reader
from trainables.store import Store


def build_report(record: SweepRecord, store: Store) -> Report:
    """Say what came out of a sweep, as far as it got.

    Reads the predictions of the chosen candidate, the controls and the teachers only, so the cost
    hardly grows with the number of trials. Missing or damaged predictions become notes.

    Args:
        record: Everything the ledger knows; needs neither Ray nor MLflow.
        store: Where the predictions lie.
    """
    trials = leaderboard.distinct(record.of(Stage.STUDENTS))
    search: Any = record.config.get("search") or {}
    tradeoff = pareto.analyse(trials, record.objective, search.get("objectives") or {})
    rows = leaderboard.student_rows(trials, record.objective, tradeoff.front)
    controls = tuple(row for row in rows if naming.is_control(row.role))
    best = leaderboard.best_row(rows)
    teachers = tuple(leaderboard.teacher_rows(record))
    confirmed = tuple(leaderboard.confirm_rows(record))
    metric = naming.decision_metric(record.objective[0])
    chosen = next((row for row in confirmed if row.chosen), None)
    plain = next((row for row in confirmed if row.role == naming.PLAIN), None)

    reader = Reader(store)
    found = evidence.gather(reader, record, confirmed, rows)
    comparisons = evidence.compare(found, metric)
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
        verdict=comparisons[0].verdict,
        sentence=comparisons[0].sentence,
        comparisons=comparisons,
        per_method=tuple(leaderboard.method_rows(trials, record.objective)),
        diagnosis=evidence.diagnose(reader, record, found, best.key if best else ""),
        pareto=tradeoff,
        cost=cost.account(record, [*trials, *leaderboard.distinct(record.of(Stage.CONFIRM))]),
        notes=(),
        history={trial.key: trial.history for trial in trials if trial.history},
    )
    return dataclasses.replace(report, notes=tuple(notes.collect(report, reader.missing)))
