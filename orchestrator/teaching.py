"""Teachers: the trials that train them, those that cache what they say, and what comes of it.

Pure: nothing here reads or writes anything.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from orchestrator.materials import TeacherMaterials
from orchestrator.proposals import Proposal
from orchestrator.schema import SweepConfig
from orchestrator.wants import needs_features
from trainables.outputs import OutputsSpec
from trainables.teacher import TeacherSpec


@dataclass(frozen=True)
class TrainedTeacher:
    """A teacher that has been trained and has passed the gate.

    Attributes:
        materials: Its config and its view of the data.
        score: Dev macro-F1.
        outputs: Key of its cached outputs on each split.
        seconds: What training it and caching its outputs took, paid once for all students.
        anchors: The same keys for each share of its training that a schedule may ask for.
    """

    materials: TeacherMaterials
    score: float
    outputs: Mapping[str, str]
    seconds: float = 0.0
    anchors: Mapping[float, Mapping[str, str]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Its name in the config."""
        return self.materials.config.name

    @property
    def groups(self) -> Sequence[int] | None:
        """Superclass of each class if it knows superclasses only, else None."""
        return self.materials.spec.groups

    def at(self, anchor: float) -> Mapping[str, str]:
        """Return the keys of its outputs after a share of its training."""
        return self.outputs if anchor == 1.0 else self.anchors[anchor]


def teacher_proposal(teacher: TeacherMaterials, spec: TeacherSpec | None = None) -> Proposal:
    """Return the trial that trains a teacher, or one of those that leave out a fold."""
    spec = spec or teacher.spec
    settings = teacher.config.model_dump(exclude_none=True, exclude={"name", "prefix"})
    if spec.fold is not None:
        settings["fold"] = f"{spec.fold[0] + 1}/{spec.fold[1]}"
    return Proposal(
        task="teacher",
        key=spec.key,
        role=teacher.config.name,
        spec=spec.to_dict(),
        params=flatten({"teacher": teacher.config.name, **settings}),
        seed=spec.seed,
    )


def teacher_proposals(teacher: TeacherMaterials) -> list[Proposal]:
    """Return the trials that train a teacher: itself, then one for each fold it leaves out."""
    return [teacher_proposal(teacher, spec) for spec in (teacher.spec, *teacher.folds)]


def outputs_proposal(
    teacher: TeacherMaterials, split: str, encoded: str, *, features: bool, anchor: float = 1.0
) -> Proposal:
    """Return the trial that caches what a teacher says about a split."""
    spec = OutputsSpec(
        teacher=teacher.spec.key,
        name=teacher.config.name,
        split=split,
        encoded=encoded,
        features=features,
        precision=teacher.config.precision,
        folds=[fold.key for fold in teacher.folds] if split == "train" else (),
        anchor=anchor,
    )
    return Proposal(
        task="outputs",
        key=spec.key,
        role=teacher.config.name,
        spec=spec.to_dict(),
        params={"teacher": teacher.config.name, "split": split, "features": features}
        | ({"folds": len(spec.folds)} if spec.folds else {})
        | ({"anchor": anchor} if anchor != 1.0 else {}),
    )


def outputs_proposals(config: SweepConfig, teacher: TeacherMaterials) -> list[Proposal]:
    """Return the trials that cache what a teacher says, all splits and anchors but test."""
    features = needs_features(config)
    return [
        outputs_proposal(teacher, split, encoded, features=features, anchor=anchor)
        for anchor in (*teacher.spec.anchors, 1.0)
        for split, encoded in teacher.tokens.encoded.items()
    ]


def trained_teacher(
    config: SweepConfig, teacher: TeacherMaterials, score: float, seconds: float = 0.0
) -> TrainedTeacher:
    """Return a teacher with the keys of its outputs, whether they exist yet or not."""
    answers: dict[float, dict[str, str]] = {}
    for proposal in outputs_proposals(config, teacher):
        anchor, split = proposal.spec["anchor"], proposal.spec["split"]
        answers.setdefault(anchor, {})[split] = proposal.key
    return TrainedTeacher(teacher, score, answers[1.0], seconds, answers)


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
