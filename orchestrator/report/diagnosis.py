"""What the predictions show beyond one number: classes, calibration, agreement, suspects.

Legend: N examples, C classes, S seeds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orchestrator.report.naming import PLAIN
from orchestrator.report.parts import ClassRow, Diagnosis, Fidelity
from orchestrator.report.predictions import Arm, Predictions
from orchestrator.report.statistics import (
    confusion_matrix,
    expected_calibration_error,
    f1_per_class,
    log_softmax,
)

Array = NDArray[Any]

MOST_SUSPECTS = 50


def diagnose(
    arms: Sequence[Arm],
    teachers: Mapping[str, Predictions],
    names: Sequence[str],
    split: str,
) -> Diagnosis:
    """Describe the compared models on one split.

    Args:
        arms: The candidate first, then the controls, all on the same examples.
        teachers: Outputs of the teachers on that split, by name.
        names: Class names in id order; ids stand in for names that are not known.
        split: ``test`` or ``dev``.
    """
    targets = arms[0].models[0].targets if arms else None
    if targets is None:
        return Diagnosis(split)
    ids = arms[0].models[0].ids
    aligned = {
        name: model.on(ids) for name, model in teachers.items() if np.isin(ids, model.ids).all()
    }
    by_role = {arm.role: arm for arm in arms}
    candidate, plain = arms[0], by_role.get(PLAIN)
    return Diagnosis(
        split=split,
        classes=_class_rows(candidate, plain, targets, names),
        fidelity=_fidelity(arms, aligned, targets),
        confusion_candidate=_as_tuples(_mean_confusion(candidate, targets)),
        confusion_plain=_as_tuples(_mean_confusion(plain, targets)) if plain else (),
    )


def suspects(teachers: Mapping[str, Predictions], ids: Array, targets: Array) -> tuple[int, ...]:
    """Return the ids of examples that every teacher gets wrong, the surest mistakes first.

    Sure means a high mean probability of the wrong class: good teachers that agree against a
    label are often right.

    Args:
        teachers: Outputs by name; those that lack an example are left out.
        ids: Example ids ``[N]``.
        targets: True classes ``[N]``.
    """
    models = [model.on(ids) for model in teachers.values() if np.isin(ids, model.ids).all()]
    if not models:
        return ()
    wrong = np.all([model.logits.argmax(1) != targets for model in models], axis=0)  # [N]
    truth = np.mean(
        [np.exp(log_softmax(model.logits))[np.arange(len(ids)), targets] for model in models],
        axis=0,
    )
    rows = np.flatnonzero(wrong)
    return tuple(int(ids[row]) for row in rows[np.argsort(truth[rows], kind="stable")])


def _class_rows(
    candidate: Arm, plain: Arm | None, targets: Array, names: Sequence[str]
) -> tuple[ClassRow, ...]:
    mine = _mean_f1(candidate, targets)
    theirs = None if plain is None else _mean_f1(plain, targets)
    support = np.bincount(targets, minlength=len(mine))
    rows = []
    for index, score in enumerate(mine.tolist()):
        other = None if theirs is None else float(theirs[index])
        rows.append(
            ClassRow(
                name=names[index] if index < len(names) else str(index),
                support=int(support[index]),
                candidate=score,
                plain=other,
                change=None if other is None else score - other,
            )
        )
    return tuple(rows)


def _fidelity(
    arms: Sequence[Arm], teachers: Mapping[str, Predictions], targets: Array
) -> tuple[Fidelity, ...]:
    soft = {name: log_softmax(model.logits) for name, model in teachers.items()}
    rows = [_fidelity_row(arm.role, arm.models, soft, targets) for arm in arms]
    for name, model in teachers.items():
        others = {key: value for key, value in soft.items() if key != name}
        rows.append(_fidelity_row(f"teacher:{name}", (model,), others, targets))
    return tuple(rows)


def _fidelity_row(
    label: str, models: Sequence[Predictions], teachers: Mapping[str, Array], targets: Array
) -> Fidelity:
    """Average over the seeds of one model; ``teachers`` are log probabilities ``[N, C]``."""
    agreement: dict[str, list[float]] = {name: [] for name in teachers}
    divergence: dict[str, list[float]] = {name: [] for name in teachers}
    for model in models:
        student = log_softmax(model.logits)
        for name, teacher in teachers.items():
            agreement[name].append(float((student.argmax(1) == teacher.argmax(1)).mean()))
            divergence[name].append(float((np.exp(teacher) * (teacher - student)).sum(1).mean()))
    return Fidelity(
        model=label,
        ece=float(np.mean([expected_calibration_error(m.logits, targets) for m in models])),
        agreement={name: float(np.mean(values)) for name, values in agreement.items()},
        divergence={name: float(np.mean(values)) for name, values in divergence.items()},
    )


def _mean_f1(arm: Arm, targets: Array) -> Array:
    n_classes = arm.models[0].logits.shape[1]
    scores = [
        f1_per_class(confusion_matrix(classes, targets, n_classes)) for classes in arm.classes()
    ]
    return np.asarray(np.mean(scores, axis=0))


def _mean_confusion(arm: Arm, targets: Array) -> Array:
    n_classes = arm.models[0].logits.shape[1]
    counts = [confusion_matrix(classes, targets, n_classes) for classes in arm.classes()]
    return np.asarray(np.mean(counts, axis=0))


def _as_tuples(matrix: Array) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(row) for row in matrix.tolist())
