"""From config and materials to trials: every spec, its role and its parameters.

Pure: nothing here reads or writes anything. The specs are plain JSON values from here on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from orchestrator.ledger import Proposal
from orchestrator.materials import Materials
from orchestrator.points import apply_point
from orchestrator.schema import SweepConfig
from orchestrator.teaching import (
    TrainedTeacher,
    flatten,
    outputs_proposal,
    outputs_proposals,
    teacher_proposal,
    teacher_proposals,
    trained_teacher,
)
from orchestrator.wants import component_names, needs_features, schedule_anchors
from trainables import catalog
from trainables.confirm import ConfirmSpec
from trainables.loop import OptimizerSpec
from trainables.student import StudentSpec, TeacherRef

__all__ = [
    "AVERAGE",
    "BEST_TEACHER",
    "PLAIN",
    "StudentFactory",
    "TrainedTeacher",
    "component_names",
    "confirm_proposals",
    "flatten",
    "needs_features",
    "outputs_proposal",
    "outputs_proposals",
    "student_params",
    "teacher_proposal",
    "teacher_proposals",
    "trained_teacher",
]

PLAIN = "control:plain"
BEST_TEACHER = "control:best_teacher"
AVERAGE = "control:average"

_OPTIMIZER = {
    "optimizer": "name",
    "lr": "lr",
    "weight_decay": "weight_decay",
    "momentum": "momentum",
    "warmup": "warmup",
    "max_grad_norm": "max_grad_norm",
}
_DIRECT = (
    *("loss", "weighting", "hint", "schedule", "ce_weight", "alpha", "beta"),
    *("epochs", "batch_size", "precision"),
)


class StudentFactory:
    """Turns points of the search space into students.

    Args:
        config: The sweep.
        materials: What its trials refer to.
        teachers: Those that passed the gate, in the order of the config.

    Attributes:
        graduates: Students, or ensembles of them, that teach in turn, by the name of their arm.
    """

    def __init__(
        self, config: SweepConfig, materials: Materials, teachers: Sequence[TrainedTeacher]
    ) -> None:
        self.config = config
        self.materials = materials
        self.teachers = {teacher.name: teacher for teacher in teachers}
        self.graduates: dict[str, TeacherRef] = {}
        self._base = config.student.model_dump(mode="json")

    def spec(self, point: Mapping[str, Any], *, seed: int | None = None) -> StudentSpec:
        """Return the student of a point: the config's base values, overridden by the point."""
        values = apply_point(self._base, point)
        names = point.get("teachers", self.usual_teachers)
        groups = self._groups(names)
        if groups is not None and _takes(values["loss"]["name"], "groups"):
            values["loss"] = {"groups": list(groups), **values["loss"]}
        values["weighting"] = self._given_weights(values["weighting"], names)
        if values["loss"].get("within") == "prior" and _takes(values["loss"]["name"], "prior"):
            counts = self.materials.data.class_counts["train"]
            values["loss"] = {"prior": [float(count) for count in counts], **values["loss"]}
        optimizer = OptimizerSpec(**{field: values[name] for name, field in _OPTIMIZER.items()})
        rows = self.materials.data.rows
        transfer = rows.get("transfer", 0)
        return StudentSpec(
            model=values["model"],
            n_classes=len(self.materials.data.classes),
            vocab_size=self.materials.student.vocab_size,
            train=self.materials.student.encoded["train"],
            dev=self.materials.student.encoded["dev"],
            transfer=self.materials.student.encoded.get("transfer") if values["transfer"] else None,
            teachers=[self._reference(name, values["schedule"]) for name in names],
            embedding=self.materials.embedding,
            freeze_embedding=self.config.student.embedding.frozen,
            rows_per_epoch=rows["train"] + transfer if transfer else None,
            optimizer=optimizer,
            seed=self.config.seed if seed is None else seed,
            **{name: values[name] for name in _DIRECT},
        )

    def proposal(self, point: Mapping[str, Any], role: str) -> Proposal:
        """Return the trial of a point."""
        spec = self.spec(point)
        return Proposal(
            task="student",
            key=spec.key,
            role=role,
            spec=spec.to_dict(),
            params=student_params(spec),
            point=dict(point),
            seed=spec.seed,
            facts={"teacher_seconds": self.teacher_seconds(spec)},
        )

    def controls(self, point: Mapping[str, Any] | None = None) -> dict[str, dict[str, Any]]:
        """Return the points of the controls: the same student, taught in the simplest ways.

        Args:
            point: The student they are compared with; without one, the config's base values.
        """
        base = dict(point or {})
        usual = [self.teachers[name] for name in self.usual_teachers]
        best = max(usual, key=lambda teacher: teacher.score)
        simple = {"weighting": {"name": "average"}, "hint": None, "beta": 0.0}
        return {
            PLAIN: {**base, "teachers": [], "hint": None, "beta": 0.0, "alpha": 0.0},
            BEST_TEACHER: {**base, **simple, "teachers": [best.name]},
            AVERAGE: {**base, **simple, "teachers": self.usual_teachers},
        }

    @property
    def usual_teachers(self) -> list[str]:
        """The teachers of a student that names none: those that know the classes, if any do."""
        fine = [name for name, teacher in self.teachers.items() if not teacher.groups]
        return fine or list(self.teachers)

    def teacher_seconds(self, spec: StudentSpec) -> float:
        """Return what training a student's teachers has taken."""
        known = [self.teachers[t.name] for t in spec.teachers if t.name in self.teachers]
        return sum(teacher.seconds for teacher in known)

    def _groups(self, names: Sequence[str]) -> Sequence[int] | None:
        """Return the superclass of each class that the teachers know, or None for classes."""
        known = [self.teachers[name].groups for name in names if name in self.teachers]
        return next((groups for groups in known if groups), None)

    def _given_weights(
        self, weighting: Mapping[str, Any], names: Sequence[str]
    ) -> Mapping[str, Any]:
        """Keep the weights of the teachers that are left when one was excluded or not chosen."""
        order = [teacher.name for teacher in self.config.teachers]
        given = weighting.get("weights")
        if given is None or len(given) != len(order) or not set(names) <= set(order):
            return weighting
        return {**weighting, "weights": [given[order.index(name)] for name in names]}

    def _reference(self, name: str, schedule: Mapping[str, Any]) -> TeacherRef:
        if name in self.graduates:
            return self.graduates[name]
        teacher = self.teachers[name]
        anchors = schedule_anchors(schedule)
        used = ("train", "transfer", "dev") if len(anchors) > 1 else ("train", "transfer")
        outputs = [
            {split: key for split, key in answers.items() if split in used}
            for answers in (teacher.at(anchor) for anchor in anchors)
        ]
        return TeacherRef(name, teacher.materials.spec.key, teacher.score, outputs)


def _takes(loss: str, name: str) -> bool:
    """Tell whether a loss wants to know ``groups`` (superclass of each class) or ``prior``."""
    return name in {parameter.name for parameter in catalog.parameters("losses", loss)}


def confirm_proposals(student: Proposal, seeds: Sequence[int], test: str | None) -> list[Proposal]:
    """Return the trials that run a student again, in its role, with each seed on the test split."""
    base = StudentSpec.from_dict(student.spec)
    proposals = []
    for seed in seeds:
        spec = ConfirmSpec(replace(base, seed=seed), test)
        proposals.append(
            replace(
                student,
                task="confirm",
                key=spec.key,
                spec=spec.to_dict(),
                params={**student.params, "seed": seed},
                group=student.key,
                seed=seed,
            )
        )
    return proposals


def student_params(spec: StudentSpec) -> dict[str, Any]:
    """Return a student's settings under flat dotted config names; without effect, left out."""
    names = [teacher.name for teacher in spec.teachers]
    nested: dict[str, Any] = {
        "model": spec.model,
        "epochs": spec.epochs,
        "batch_size": spec.batch_size,
        "ce_weight": spec.ce_weight,
        "optimizer": spec.optimizer.name,
        **{name: getattr(spec.optimizer, name) for name in _OPTIMIZER if name != "optimizer"},
        "transfer": spec.transfer is not None and spec.distils,
        "precision": spec.precision,
        "seed": spec.seed,
    }
    if spec.optimizer.name != "sgd":
        del nested["momentum"]
    if not spec.distils:
        # Spelled out, so that every student has the same columns when runs are compared.
        nested |= {"teachers": "none", "n_teachers": 0, "alpha": 0.0, "beta": 0.0}
        nested |= {"loss": "none", "weighting": "none"}
    else:
        nested |= {
            "teachers": "+".join(names),
            "n_teachers": len(names),
            "alpha": spec.alpha,
            "beta": spec.beta,
            "loss": spec.loss,
            "weighting": spec.weighting,
            "schedule": spec.schedule,
        }
        if spec.hint is not None and spec.beta:
            nested["hint"] = spec.hint
    return flatten(nested)
