"""The arms of a sweep: what each reached over its seeds, and whether that is more than chance.

Legend: N examples, C classes, S seeds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from orchestrator.records import SweepRecord
from orchestrator.report import verdict
from orchestrator.report.parts import Comparison, Spread
from orchestrator.report.predictions import Arm, Reader, common_ids
from orchestrator.report.statistics import confusion_matrix, spread
from trainables.store import Store

PLAIN, AVERAGE = "plain", "average"


@dataclass(frozen=True)
class ArmRow:
    """One arm, or one of the controls.

    Attributes:
        name: As in the config.
        kind: ``confirm`` for a student, ``ensemble`` for several.
        metrics: Mean and spread over the seeds.
        against_plain: Paired comparison with the student without a teacher.
        against_average: The same with the plain average of the teachers.
        curve: Mean dev macro-F1 after each epoch: how fast it learns.
        selection: How often each teacher was selected in the last epoch, for policies.
        by_difficulty: For policies, by level of difficulty of the training rows: the mean
            probability of selecting each teacher, when training was over.
        recall: Mean recall of each class.
        retention: Share of examples on which it agrees with the arms that taught it.
    """

    name: str
    kind: str
    metrics: Mapping[str, Spread]
    against_plain: Comparison | None = None
    against_average: Comparison | None = None
    curve: tuple[float, ...] = ()
    selection: Mapping[str, float] | None = None
    by_difficulty: Mapping[str, Mapping[str, float]] | None = None
    recall: Mapping[str, float] | None = None
    retention: float | None = None


class ArmReport:
    """Reads the results of the arms of a sweep.

    Args:
        record: The sweep.
        store: Where the predictions lie.
        metric: Deciding metric without its split, e.g. ``accuracy``.
    """

    def __init__(self, record: SweepRecord, store: Store, metric: str) -> None:
        self._store = store
        self._metric = metric
        self._classes = tuple(record.data.get("classes", ()))
        self._listed = _in_order(record)
        self._seeds = _common_seeds(record.config)
        self._reader = Reader(store)
        tested = any("test_accuracy" in m for name in self._listed for m in self._metrics(name))
        self.split = "test" if tested else "dev"
        self._arms = {name: self._predictions(name) for name in self._listed}

    @property
    def metric(self) -> str:
        """The deciding metric with its split."""
        return ("test_" if self.split == "test" else "val_") + self._metric

    def rows(self) -> list[ArmRow]:
        """Return a row for each arm that has results, controls first."""
        return [self._row(name) for name in self._listed if self._keys(name)]

    def compare(self, name: str, other: str) -> Comparison | None:
        """Compare one arm with another on the examples and seeds they share."""
        first, second = self._arms.get(name), self._arms.get(other)
        if name == other or first is None or second is None:
            return None
        return verdict.compare(first, second, self._metric, self.split, name)

    def _row(self, name: str) -> ArmRow:
        metrics = self._metrics(name)
        names = dict.fromkeys(key for entry in metrics for key in entry)
        histories = [
            (self._store.meta(self._listed[name]["kind"], key) or {}).get("history", [])
            for key in self._keys(name).values()
        ]
        students = self._students(name)
        return ArmRow(
            name=name,
            kind=self._listed[name]["kind"],
            metrics={
                key: spread([entry[key] for entry in metrics if key in entry]) for key in names
            },
            against_plain=self.compare(name, PLAIN),
            against_average=self.compare(name, AVERAGE),
            curve=_curve(histories),
            selection=_selection(histories, _teachers(students)),
            by_difficulty=_by_difficulty(students),
            recall=self._recall(name),
            retention=self._retention(name),
        )

    def _keys(self, name: str) -> dict[int, str]:
        """Return the keys by seed; members trained for an ensemble only are left out."""
        keys = {int(seed): key for seed, key in self._listed[name]["keys"].items()}
        return {seed: key for seed, key in keys.items() if seed in self._seeds}

    def _metrics(self, name: str) -> list[Mapping[str, float]]:
        kind = self._listed[name]["kind"]
        found = [self._store.meta(kind, key) for key in self._keys(name).values()]
        return [meta["metrics"] for meta in found if meta is not None]

    def _students(self, name: str) -> list[Mapping[str, Any]]:
        """Return the manifests of the students that were confirmed; of an ensemble, none."""
        confirmed = [
            self._store.meta("confirm", key) or {}
            for key in self._keys(name).values()
            if self._listed[name]["kind"] == "confirm"
        ]
        found = [
            self._store.meta(str(meta.get("task", "student")), str(meta["student"]))
            for meta in confirmed
            if "student" in meta
        ]
        return [meta for meta in found if meta is not None]

    def _predictions(self, name: str) -> Arm | None:
        return self._reader.listed(self._listed[name]["kind"], self._keys(name), name, self.split)

    def _recall(self, name: str) -> Mapping[str, float] | None:
        arm = self._arms[name]
        if arm is None or arm.models[0].targets is None:
            return None
        counts = sum(
            confusion_matrix(model.logits.argmax(1), model.targets, len(self._classes))
            for model in arm.models
            if model.targets is not None
        )
        support = np.maximum(np.asarray(counts).sum(1), 1)
        values = np.diag(np.asarray(counts)) / support
        return dict(zip(self._classes, map(float, values), strict=True))

    def _retention(self, name: str) -> float | None:
        """Return how often the arm still says what its teachers, earlier students, said."""
        arm = self._arms[name]
        teachers = [self._arms.get(other) for other in self._listed[name].get("taught_by", ())]
        known = [teacher for teacher in teachers if teacher is not None]
        if arm is None or not known:
            return None
        ids = common_ids([arm, *known])
        mine = arm.on(ids).classes()  # [S, N]
        theirs = [teacher.on(ids).models[0].logits.argmax(1) for teacher in known]
        return float(np.mean([(mine == other).mean() for other in theirs]))


def _in_order(record: SweepRecord) -> dict[str, Mapping[str, Any]]:
    """Return where the results are: the controls, then the arms as the config lists them."""
    found: Mapping[str, Mapping[str, Any]] = record.data.get("arms") or {}
    written = [str(arm["name"]) for arm in record.config.get("arms") or ()]
    controls = [name for name in (PLAIN, "best_teacher", AVERAGE) if name in found]
    return {name: found[name] for name in (*controls, *written) if name in found}


def _common_seeds(config: Mapping[str, Any]) -> set[int]:
    first, count = int(config.get("seed", 0)), int((config.get("confirm") or {}).get("seeds", 0))
    return set(range(first, first + count))


def _curve(histories: Sequence[Sequence[Mapping[str, float]]]) -> tuple[float, ...]:
    scores = [[entry.get("val_f1_macro") for entry in history] for history in histories]
    length = min((len(score) for score in scores), default=0)
    epochs = [[score[epoch] for score in scores] for epoch in range(length)]
    return tuple(
        float(np.mean([value for value in values if value is not None]))
        for values in epochs
        if all(value is not None for value in values)
    )


def _selection(
    histories: Sequence[Sequence[Mapping[str, float]]], teachers: Sequence[str]
) -> Mapping[str, float] | None:
    """Return the mean rate of each teacher in the last epoch, by its name where that is known."""
    known = {str(number): name for number, name in enumerate(teachers)}
    last = [history[-1] for history in histories if history]
    names = [name for name in (last[0] if last else {}) if name.startswith("selection_rate_")]
    rates = {
        name.removeprefix("selection_rate_"): float(np.mean([entry[name] for entry in last]))
        for name in names
        if all(name in entry for entry in last)
    }
    return {known.get(number, number): rate for number, rate in rates.items()} or None


def _teachers(students: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the names of the teachers, in their order, as the first student knew them."""
    spec: Mapping[str, Any] = students[0].get("spec", {}) if students else {}
    return [str(teacher["name"]) for teacher in spec.get("teachers", ())]


def _by_difficulty(
    students: Sequence[Mapping[str, Any]],
) -> Mapping[str, Mapping[str, float]] | None:
    """Return selection probabilities by level and teacher, averaged over the seeds."""
    told = [meta for meta in students if "selection" in meta]
    if not told:
        return None
    first = told[0]["selection"]
    levels = sorted(first, key=lambda level: float(first[level]["difficulty"]))
    # By position: a student that an earlier sweep trained may know its teachers by other names.
    return {
        level: dict(
            zip(
                _teachers(told),
                np.mean([_shares(meta, level) for meta in told], axis=0).tolist(),
                strict=True,
            )
        )
        for level in levels
    }


def _shares(student: Mapping[str, Any], level: str) -> list[float]:
    """Return how likely a student's policy selects each teacher on rows of a level."""
    shares = student["selection"][level]["teachers"]
    return [float(shares[name]) for name in _teachers([student])]
