"""The predictions a verdict rests on, and the comparisons made from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from orchestrator.records import Stage, SweepRecord
from orchestrator.report import diagnosis, leaderboard, naming, verdict
from orchestrator.report.parts import Comparison, ConfirmRow, Diagnosis, TrialRow
from orchestrator.report.predictions import Arm, Predictions, Reader, common_ids


@dataclass(frozen=True)
class Evidence:
    """What there is to compare.

    Attributes:
        split: Where it was measured, ``test`` or ``dev``.
        method: The candidate in words.
        arms: The candidate first, then the controls, all on the same examples; empty if the
            candidate's predictions are missing.
        wanted: Roles that finished and should therefore have predictions.
    """

    split: str
    method: str = ""
    arms: tuple[Arm, ...] = ()
    wanted: tuple[str, ...] = ()


def gather(
    reader: Reader,
    record: SweepRecord,
    confirmed: Sequence[ConfirmRow],
    rows: Sequence[TrialRow],
) -> Evidence:
    """Read the best evidence there is: confirmed on test, confirmed on dev, or single runs on dev.

    Args:
        reader: Reads from the store and remembers what is missing.
        record: The sweep.
        confirmed: Rows of the confirm stage.
        rows: Rows of the student stage.
    """
    chosen = next((row for row in confirmed if row.chosen), None)
    if chosen is not None:
        return _from_confirm(reader, record, confirmed, chosen)
    best = leaderboard.best_row(rows)
    return Evidence("dev") if best is None else _from_search(reader, record, rows, best)


def compare(evidence: Evidence, metric: str) -> tuple[Comparison, ...]:
    """Compare the candidate with the plain student first, then with the best other control."""
    if not evidence.wanted:
        reason = "no distilled student is complete"
        return (verdict.unknown(naming.PLAIN, metric, evidence.split, reason),)
    controls = [role for role in evidence.wanted if role != naming.CANDIDATE]
    if naming.PLAIN not in controls:
        controls.insert(0, naming.PLAIN)
    return tuple(_compare_one(evidence, role, metric) for role in controls)


def diagnose(reader: Reader, record: SweepRecord, evidence: Evidence, best: str) -> Diagnosis:
    """Describe the compared models, and list examples that every teacher gets wrong.

    Those are looked for on dev only: who mends labels of the test split after seeing predictions
    of it has no test split any more.

    Args:
        reader: Reads from the store.
        record: The sweep.
        evidence: The compared models.
        best: Key of the best student of the search, for the targets of dev.
    """
    if not evidence.arms:
        return Diagnosis(evidence.split)
    outputs = record.of(Stage.OUTPUTS)
    n_classes = evidence.arms[0].models[0].logits.shape[1]
    teachers = _of_classes(reader.teachers(outputs, evidence.split), n_classes)
    names = tuple(record.data.get("classes", ()))
    found = diagnosis.diagnose(evidence.arms, teachers, names, evidence.split)
    model: Predictions | None = evidence.arms[0].models[0]
    on_dev: Mapping[str, Predictions] = teachers
    if evidence.split != "dev":
        arm = reader.searched(best, "the best student", 0) if best else None
        model, on_dev = (
            (arm.models[0] if arm else None),
            _of_classes(reader.teachers(outputs, "dev"), n_classes),
        )
    if model is None or model.targets is None:
        return found
    ids = diagnosis.suspects(on_dev, model.ids, model.targets)
    return replace(found, suspects=ids[: diagnosis.MOST_SUSPECTS], n_suspects=len(ids))


def _of_classes(teachers: Mapping[str, Predictions], n_classes: int) -> dict[str, Predictions]:
    """Drop teachers of superclasses: they cannot agree or disagree about a class."""
    return {name: found for name, found in teachers.items() if found.logits.shape[1] == n_classes}


def _from_confirm(
    reader: Reader, record: SweepRecord, confirmed: Sequence[ConfirmRow], chosen: ConfirmRow
) -> Evidence:
    name, direction = record.objective
    sign = 1.0 if direction == "max" else -1.0
    plain = next((row for row in confirmed if row.role == naming.PLAIN and row.keys), None)
    other = leaderboard.best_other_control(confirmed, name, sign)
    rows = [row for row in (chosen, plain, other) if row is not None]
    split = "test" if any(key.startswith("test_") for key in chosen.metrics) else "dev"
    arms = [reader.confirmed(row, split) for row in rows]
    return _aligned(split, chosen.method, arms, [row.role for row in rows])


def _from_search(
    reader: Reader, record: SweepRecord, rows: Sequence[TrialRow], best: TrialRow
) -> Evidence:
    ranked = sorted((row for row in rows if row.rank), key=lambda row: row.rank or 0)
    controls = [row for row in ranked if naming.is_control(row.role) and row.key != best.key]
    plain = [row for row in controls if row.role == naming.PLAIN][:1]
    other = [row for row in controls if row.role != naming.PLAIN][:1]
    seeds = {trial.key: trial.seed for trial in record.of(Stage.STUDENTS)}
    compared = {naming.CANDIDATE: best} | {row.role: row for row in plain + other}
    arms = [reader.searched(row.key, role, seeds[row.key]) for role, row in compared.items()]
    return _aligned("dev", best.method, arms, list(compared))


def _aligned(
    split: str, method: str, arms: Sequence[Arm | None], wanted: Sequence[str]
) -> Evidence:
    found = [arm for arm in arms if arm is not None]
    if not found or found[0].role != naming.CANDIDATE:
        return Evidence(split, method, (), tuple(wanted))
    ids = common_ids(found)
    return Evidence(split, method, tuple(arm.on(ids) for arm in found), tuple(wanted))


def _compare_one(evidence: Evidence, role: str, metric: str) -> Comparison:
    available = {arm.role: arm for arm in evidence.arms}
    candidate, control = available.get(naming.CANDIDATE), available.get(role)
    if candidate is not None and control is not None:
        return verdict.compare(candidate, control, metric, evidence.split, evidence.method)
    reason = "it is not complete"
    if role in evidence.wanted:
        reason = f"predictions on {evidence.split} are not in the store"
    return verdict.unknown(role, metric, evidence.split, reason)
