"""From config and materials to trials: every spec, its role and its parameters.

Pure: nothing here reads or writes anything. The specs are plain JSON values from here on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from orchestrator.ledger import Proposal
from orchestrator.materials import Materials, TeacherMaterials
from orchestrator.points import apply_point
from orchestrator.schema import SweepConfig
from trainables import catalog
from trainables.confirm import ConfirmSpec
from trainables.loop import OptimizerSpec
from trainables.outputs import OutputsSpec
from trainables.student import StudentSpec, TeacherRef

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


@dataclass(frozen=True)
class TrainedTeacher:
    """A teacher that has been trained and has passed the gate.

    Attributes:
        materials: Its config and its view of the data.
        score: Dev macro-F1.
        outputs: Key of its cached outputs on each split.
        seconds: What training it and caching its outputs took, paid once for all students.
    """

    materials: TeacherMaterials
    score: float
    outputs: Mapping[str, str]
    seconds: float = 0.0

    @property
    def name(self) -> str:
        """Its name in the config."""
        return self.materials.config.name


def teacher_proposal(teacher: TeacherMaterials) -> Proposal:
    """Return the trial that trains a teacher."""
    settings = teacher.config.model_dump(exclude_none=True, exclude={"name", "prefix"})
    return Proposal(
        task="teacher",
        key=teacher.spec.key,
        role=teacher.config.name,
        spec=teacher.spec.to_dict(),
        params=flatten({"teacher": teacher.config.name, **settings}),
        seed=teacher.spec.seed,
    )


def outputs_proposal(
    teacher: TeacherMaterials, split: str, encoded: str, *, features: bool
) -> Proposal:
    """Return the trial that caches what a teacher says about a split."""
    spec = OutputsSpec(
        teacher=teacher.spec.key,
        name=teacher.config.name,
        split=split,
        encoded=encoded,
        features=features,
        precision=teacher.config.precision,
    )
    return Proposal(
        task="outputs",
        key=spec.key,
        role=teacher.config.name,
        spec=dict(vars(spec)),
        params={"teacher": teacher.config.name, "split": split, "features": features},
    )


def needs_features(config: SweepConfig) -> bool:
    """Tell whether any hint of the config compares features, fixed or searched."""
    hints = component_names(config, "hint")
    return any(catalog.load("hints", name).level == "features" for name in hints)


def component_names(config: SweepConfig, kind: str) -> set[str]:
    """Return the names of the losses, weightings or hints a config may use."""
    values = [getattr(config.student, kind), config.search.space.get(kind)]
    found: set[str] = set()
    while values:
        value = values.pop()
        if isinstance(value, str):
            found.add(value)
        elif isinstance(value, list):
            values.extend(value)
        elif isinstance(value, Mapping):
            wrapped = [value[key] for key in ("choice", "grid", "fixed") if key in value]
            values.extend(wrapped or [value.get("name")])
    return found


class StudentFactory:
    """Turns points of the search space into students.

    Args:
        config: The sweep.
        materials: What its trials refer to.
        teachers: Those that passed the gate, in the order of the config.
    """

    def __init__(
        self, config: SweepConfig, materials: Materials, teachers: Sequence[TrainedTeacher]
    ) -> None:
        self.config = config
        self.materials = materials
        self.teachers = {teacher.name: teacher for teacher in teachers}
        self._base = config.student.model_dump(mode="json")

    def spec(self, point: Mapping[str, Any], *, seed: int | None = None) -> StudentSpec:
        """Return the student of a point: the config's base values, overridden by the point."""
        values = apply_point(self._base, point)
        names = point.get("teachers", list(self.teachers))
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
            teachers=[self._reference(name) for name in names],
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
            facts={"teacher_seconds": sum(self.teachers[t.name].seconds for t in spec.teachers)},
        )

    def controls(self, point: Mapping[str, Any] | None = None) -> dict[str, dict[str, Any]]:
        """Return the points of the controls: the same student, taught in the simplest ways.

        Args:
            point: The student they are compared with; without one, the config's base values.
        """
        base = dict(point or {})
        best = max(self.teachers.values(), key=lambda teacher: teacher.score)
        simple = {"weighting": {"name": "average"}, "hint": None, "beta": 0.0}
        return {
            PLAIN: {**base, "teachers": [], "hint": None, "beta": 0.0, "alpha": 0.0},
            BEST_TEACHER: {**base, **simple, "teachers": [best.name]},
            AVERAGE: {**base, **simple, "teachers": list(self.teachers)},
        }

    def _reference(self, name: str) -> TeacherRef:
        teacher = self.teachers[name]
        splits = {
            split: key for split, key in teacher.outputs.items() if split in ("train", "transfer")
        }
        return TeacherRef(name, teacher.materials.spec.key, teacher.score, [splits])


def confirm_proposals(student: Proposal, seeds: Sequence[int], test: str | None) -> list[Proposal]:
    """Return the trials that run a student again with each seed and read the test split."""
    base = StudentSpec.from_dict(student.spec)
    proposals = []
    for seed in seeds:
        spec = ConfirmSpec(replace(base, seed=seed), test)
        proposals.append(
            replace(
                student,
                task="confirm",
                key=spec.key,
                role=student.role if student.role.startswith("control") else "candidate",
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


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested settings under dotted names; a component's own name stands for it."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        path = prefix if name == "name" and prefix else f"{prefix}.{name}".lstrip(".")
        if isinstance(value, Mapping):
            flat |= flatten(value, path)
        elif isinstance(value, list | tuple):
            flat[path] = ",".join(str(entry) for entry in value)
        else:
            flat[path] = value
    return flat
