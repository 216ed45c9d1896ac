"""The gate: which trained teachers are worth learning from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from orchestrator.errors import PreflightError, Problem
from orchestrator.materials import Materials
from orchestrator.records import TrialRecord, TrialState
from trainables.dataset import PreparedData
from trainables.hierarchy import superclass_counts

# A teacher that beats always-the-biggest-class by less than this has learned nothing of use.
GATE_MARGIN = 0.02


def pass_gate(
    materials: Materials, records: Mapping[str, TrialRecord], warn: Callable[[str], None]
) -> dict[str, float]:
    """Return the dev macro-F1 of each teacher that is worth learning from.

    Args:
        materials: The teachers and the data.
        records: What became of their trials, by key.
        warn: Told of each teacher that is excluded or below the TF-IDF floor.

    Raises:
        PreflightError: No teacher is left; lists what is wrong with each.
    """
    floor = float(materials.floor.get("val_accuracy", 0.0))
    passed, problems = {}, []
    for teacher in materials.teachers:
        name = teacher.config.name
        majority = _majority(materials.data, teacher.spec.groups)
        record = _worst([records.get(s.key) for s in (teacher.spec, *teacher.folds)])
        if record is None or record.state is not TrialState.COMPLETE:
            reason = "was not trained" if record is None or not record.error else record.error
            text = f"failed: {reason.partition(chr(10))[0]}"
        elif record.metrics["val_accuracy"] <= majority + GATE_MARGIN:
            text = (
                f"reaches {record.metrics['val_accuracy']:.3f} accuracy on dev, no better "
                f"than always answering the biggest class ({majority:.3f})"
            )
        else:
            passed[name] = float(record.metrics["val_f1_macro"])
            # The floor knows the classes; superclasses are easier, so it says nothing there.
            if record.metrics["val_accuracy"] < floor and not teacher.spec.groups:
                warn(
                    f"teacher {name} ({record.metrics['val_accuracy']:.3f} accuracy on dev) "
                    f"is below the TF-IDF floor ({floor:.3f}): train it longer or drop it"
                )
            continue
        problem = Problem(
            f"teachers.{name}", text, "raise its epochs or lr, or check its data and labels"
        )
        problems.append(problem)
        warn(f"excluded: {problem}")
    if not passed:
        raise PreflightError(problems)
    return passed


def _worst(records: Sequence[TrialRecord | None]) -> TrialRecord | None:
    """Return the first training of a teacher that is not complete, or else its own."""
    for record in records:
        if record is None or record.state is not TrialState.COMPLETE:
            return record
    return records[0]


def _majority(data: PreparedData, groups: Sequence[int] | None) -> float:
    """Return the dev accuracy of always answering the biggest class a teacher can know."""
    if groups is None:
        return data.majority
    counts = superclass_counts(data.class_counts["dev"], groups)
    return max(counts) / sum(counts)
