"""Where a sweep's seconds went, and what the cached outputs saved."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.records import Stage, SweepRecord, TrialRecord, TrialState
from orchestrator.report import naming
from orchestrator.report.parts import Cost

# A teacher whose trial took less than this share of its training time came from the store.
_REUSED_BELOW = 0.5


def account(record: SweepRecord, students: Sequence[TrialRecord]) -> Cost:
    """Add up the trials of a sweep.

    Args:
        record: The sweep; lost and failed attempts count, they cost time too.
        students: Distinct trials of the student and confirm stages.
    """
    stages = {
        stage.value: sum((trial.seconds for trial in record.of(stage)), 0.0) for stage in Stage
    }
    gpu = [trial.metrics["gpu_seconds"] for trial in record.trials if _has_gpu_seconds(trial)]
    return Cost(
        stages=stages,
        gpu_seconds=sum(gpu) if gpu else None,
        teacher_forwards_saved=_saved(record, students),
        teachers_reused=_reused(record),
    )


def _saved(record: SweepRecord, students: Sequence[TrialRecord]) -> float:
    """Estimate the teacher seconds students would have spent with live teachers.

    One epoch of a student needs each of its teachers once on the rows it trains on, which is what
    the outputs trials of the splits train and transfer measured.
    """
    passes: dict[tuple[str, str], float] = {}
    spent = 0.0
    for trial in record.of(Stage.OUTPUTS):
        split = trial.spec.get("split")
        if trial.state is TrialState.COMPLETE and split in {"train", "transfer"}:
            # A trial answered from the store took no time now, but its pass has been measured.
            passes[trial.role, split] = trial.metrics.get("train_seconds", trial.seconds)
            spent += trial.seconds
    forward: dict[str, float] = {}
    for (teacher, _), seconds in passes.items():
        forward[teacher] = forward.get(teacher, 0.0) + seconds
    needed = 0.0
    for student in students:
        if student.role != naming.PLAIN:
            names = naming.teachers_of(student)
            epochs = len(student.history)
            needed += epochs * sum(forward.get(name, 0.0) for name in names)
    return max(0.0, needed - spent)


def _reused(record: SweepRecord) -> float:
    total = 0.0
    for trial in record.of(Stage.TEACHERS):
        trained = trial.metrics.get("train_seconds", 0.0)
        if trial.state is TrialState.COMPLETE and trial.seconds < _REUSED_BELOW * trained:
            total += trained
    return total


def _has_gpu_seconds(trial: TrialRecord) -> bool:
    return trial.metrics.get("gpu_seconds", 0.0) > 0.0
