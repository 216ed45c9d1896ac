"""The report as data, and the JSON document that ``report --json`` prints."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from orchestrator.report.naming import is_control
from orchestrator.report.parts import (
    Comparison,
    ConfirmRow,
    Cost,
    Diagnosis,
    Distillation,
    MethodRow,
    Pareto,
    TeacherRow,
    TrialRow,
    Verdict,
)


@dataclass(frozen=True)
class Report:
    """Everything a sweep has to say; made by ``build_report``."""

    sweep: str
    objective: tuple[str, str]
    data: Mapping[str, Any]
    floor: Mapping[str, float]
    teachers: tuple[TeacherRow, ...]
    controls: tuple[TrialRow, ...]
    students: tuple[TrialRow, ...]
    best: TrialRow | None
    confirm: tuple[ConfirmRow, ...]
    distillation: Distillation
    verdict: Verdict
    sentence: str
    comparisons: tuple[Comparison, ...]
    per_method: tuple[MethodRow, ...]
    diagnosis: Diagnosis
    pareto: Pareto
    cost: Cost
    notes: tuple[str, ...]
    history: Mapping[str, tuple[Mapping[str, float], ...]] = field(default_factory=dict)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes in id order."""
        return tuple(self.data.get("classes", ()))

    @property
    def chosen(self) -> ConfirmRow | None:
        """The confirmed candidate that the verdict is about: the one to ship."""
        return next((row for row in self.confirm if row.chosen), None)

    @property
    def distillation_ratio(self) -> float | None:
        """The share of the teacher's advantage that the student kept."""
        return self.distillation.ratio

    def ranked(self) -> list[TrialRow]:
        """Return controls and students: complete ones by rank, then the others as they ran."""
        rows = [*self.controls, *self.students]
        return sorted(rows, key=lambda row: (row.rank is None, row.rank or 0))

    def leaders(self, top: int = 10) -> list[TrialRow]:
        """Return the best complete trials, and every complete control below them."""
        rows = [row for row in self.ranked() if row.rank]
        return rows[:top] + [row for row in rows[top:] if is_control(row.role)]

    def to_json(self) -> dict[str, Any]:
        """Return the document of ``report --json``; JSON values only, no NaN."""
        document = {
            "sweep": self.sweep,
            "objective": {"metric": self.objective[0], "direction": self.objective[1]},
            "data": self.data,
            "classes": self.classes,
            "floor": self.floor,
            "teachers": self.teachers,
            "controls": self.controls,
            "students": self.students,
            "best": self.best,
            "confirm": self.confirm,
            "chosen": self.chosen,
            "distillation_ratio": self.distillation_ratio,
            "distillation": self.distillation,
            "verdict": self.verdict,
            "verdict_sentence": self.sentence,
            "comparisons": self.comparisons,
            "per_method": self.per_method,
            "diagnosis": self.diagnosis,
            "pareto": self.pareto,
            "cost": self.cost,
            "notes": self.notes,
        }
        return {name: _plain(value) for name, value in document.items()}


def _plain(value: Any) -> Any:
    """Turn records, tuples, enums and non-finite floats into what JSON can hold."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {item.name: _plain(getattr(value, item.name)) for item in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, StrEnum):
        return value.value
    return value
