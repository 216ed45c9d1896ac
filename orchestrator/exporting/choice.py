"""Which student of a sweep to take away."""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.errors import OrchestratorError, UsageError
from orchestrator.records import Stage, SweepRecord, TrialRecord, TrialState
from orchestrator.report.document import Report
from orchestrator.report.naming import decision_metric
from trainables.store import Store


@dataclass(frozen=True)
class Choice:
    """A trained student and why it was taken.

    Attributes:
        trial: The trial that made it, of the students or the confirm stage.
        student: Key of its artifact.
        kind: Kind of its artifact: ``joint`` if its teacher was trained with it.
        confirmed: It is a seed of the configuration that the sweep's verdict is about.
    """

    trial: TrialRecord
    student: str
    kind: str
    confirmed: bool


def choose(record: SweepRecord, report: Report, store: Store, wanted: str | None) -> Choice:
    """Return the student to export.

    Args:
        record: The sweep.
        report: Its report.
        store: Where the artifacts are.
        wanted: Key of a trial or its beginning; None takes the confirmed candidate's seed that is
            best on dev, or before any is confirmed, the best student on dev.

    Raises:
        UsageError: No such trial, more than one, or nothing is complete yet.
    """
    trials = [
        trial
        for stage in (Stage.CONFIRM, Stage.STUDENTS)
        for trial in record.of(stage)
        if trial.state is TrialState.COMPLETE
    ]
    trial = _best(record, report, trials) if wanted is None else _named(record, trials, wanted)
    chosen = report.chosen
    confirmed = chosen is not None and trial.key in chosen.keys
    key, kind = _artifact(trial, store)
    return Choice(trial, key, kind, confirmed)


def _best(record: SweepRecord, report: Report, trials: list[TrialRecord]) -> TrialRecord:
    name, direction = record.objective
    if not name.startswith("val_"):
        # The smallest or fastest of several seeds of one model means nothing.
        name, direction = f"val_{decision_metric(name)}", "max"
    sign = 1.0 if direction == "max" else -1.0
    keys = report.chosen.keys if report.chosen else [report.best.key] if report.best else []
    found = [trial for trial in trials if trial.key in keys]
    if not found:
        raise UsageError(
            f"sweep {record.name!r} has no complete student yet; let it go on with "
            "'orchestrator sweep', or name another sweep"
        )
    # max keeps the first of equals: the lowest seed.
    return max(found, key=lambda trial: sign * trial.metrics.get(name, -sign * float("inf")))


def _named(record: SweepRecord, trials: list[TrialRecord], wanted: str) -> TrialRecord:
    found = {trial.key: trial for trial in reversed(trials) if trial.key.startswith(wanted)}
    if len(found) == 1:
        return next(iter(found.values()))
    if found:
        some = ", ".join(sorted(key[:12] for key in found)[:5])
        raise UsageError(
            f"{len(found)} trials begin with {wanted!r} ({some}); give more of the key"
        )
    raise UsageError(
        f"sweep {record.name!r} has no complete student {wanted!r}; "
        f"'orchestrator report {record.name} --format csv' lists the keys"
    )


def _artifact(trial: TrialRecord, store: Store) -> tuple[str, str]:
    """Return key and kind of the student's artifact; a confirm artifact names what it judged."""
    if trial.stage is Stage.STUDENTS:
        return trial.key, "student"
    if "members" in trial.params:
        raise UsageError(
            f"trial {trial.key[:12]} is an ensemble ({trial.params['members']}), which is not one "
            "model that can be exported; name one of its members with --trial"
        )
    meta = store.meta("confirm", trial.key)
    if meta is None:
        raise OrchestratorError(
            f"the store has lost trial {trial.key[:12]}; start the sweep again, which makes it anew"
        )
    return str(meta["student"]), str(meta.get("task", "student"))
