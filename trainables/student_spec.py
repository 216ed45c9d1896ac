"""What determines a student: its spec, and the key that follows from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from trainables import catalog
from trainables.device import Precision
from trainables.loop import OptimizerSpec
from trainables.protocols import Loss
from trainables.store import content_key


@dataclass(frozen=True)
class TeacherRef:
    """A teacher a student learns from.

    Attributes:
        name: Its name in the config; not part of the student's key.
        key: Key of the teacher artifact.
        score: Its dev macro-F1, which ranks teachers.
        outputs: For each anchor of the schedule, the outputs artifacts by split
            (``train`` and, with transfer rows, ``transfer``).
    """

    name: str
    key: str
    score: float
    outputs: Sequence[Mapping[str, str]]


@dataclass(frozen=True)
class StudentSpec:
    """Everything that determines a student.

    Attributes:
        model: Component name and parameters.
        n_classes: C.
        vocab_size: Entries of the student's tokenizer.
        train: Key of the encoded labelled rows.
        dev: Key of the encoded dev rows.
        transfer: Key of the encoded unlabelled rows, or None.
        teachers: In the order chosen; empty for the plain student.
        loss: Component name and parameters.
        weighting: Component name and parameters.
        hint: Component name and parameters, or None.
        schedule: Component name and parameters.
        ce_weight: Weight of the cross-entropy with the labels.
        alpha: Weight of the distillation loss.
        beta: Weight of the hint.
        embedding: Key of the initial embedding, or None for random.
        freeze_embedding: Keep the embedding as it is.
        epochs: How often ``rows_per_epoch`` rows are seen.
        rows_per_epoch: Rows in an epoch, or None for all there are. Students of one sweep share
            it, so that one without transfer rows gets as many steps as one with them.
        batch_size: Rows per step.
        optimizer: How weights are updated.
        precision: Of the forward passes.
        seed: Of initialisation, dropout and batch order.
    """

    model: Mapping[str, Any]
    n_classes: int
    vocab_size: int
    train: str
    dev: str
    transfer: str | None = None
    teachers: Sequence[TeacherRef] = ()
    loss: Mapping[str, Any] = field(default_factory=lambda: {"name": "kd"})
    weighting: Mapping[str, Any] = field(default_factory=lambda: {"name": "average"})
    hint: Mapping[str, Any] | None = None
    schedule: Mapping[str, Any] = field(default_factory=lambda: {"name": "constant"})
    ce_weight: float = 1.0
    alpha: float = 1.0
    beta: float = 0.0
    embedding: str | None = None
    freeze_embedding: bool = False
    epochs: int = 5
    rows_per_epoch: int | None = None
    batch_size: int = 128
    optimizer: OptimizerSpec = field(default_factory=OptimizerSpec)
    precision: Precision = "auto"
    seed: int = 0

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> StudentSpec:
        """Read it back from JSON values."""
        teachers = tuple(TeacherRef(**teacher) for teacher in values["teachers"])
        optimizer = OptimizerSpec(**values["optimizer"])
        return cls(**{**values, "teachers": teachers, "optimizer": optimizer})

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {
            **vars(self),
            "teachers": [
                {**vars(teacher), "outputs": [dict(anchor) for anchor in teacher.outputs]}
                for teacher in self.teachers
            ],
            "optimizer": vars(self.optimizer),
        }

    def canonical(self) -> dict[str, Any]:
        """Return what the result depends on: parts without effect are left out.

        Two configs that train the same student, such as any loss at ``alpha`` 0, must have one
        key, or a search would train it again and again.
        """
        values = self.to_dict()
        if not self.distils:
            for name in ("loss", "weighting", "hint", "schedule", "alpha", "beta", "transfer"):
                values[name] = None
            values["teachers"] = []
            return values
        if self.alpha == 0 and not self._translates:
            values["loss"] = None
        if self.beta == 0 or self.hint is None:
            values["hint"], values["beta"] = None, 0.0
        if len(self.teachers) == 1:
            # Every weighting gives a single teacher the weight 1 (METHODS 14.1, property 6).
            values["weighting"] = None
        for teacher in values["teachers"]:
            del teacher["name"]
        return values

    @property
    def distils(self) -> bool:
        """Whether any term compares the student with a teacher."""
        return bool(self.teachers) and (self.alpha != 0 or (self.beta != 0 and bool(self.hint)))

    @property
    def _translates(self) -> bool:
        """Whether the loss also tells the weighting how the teachers' classes are to be read."""
        loss = catalog.load("losses", self.loss["name"])
        view = getattr(loss, "teacher_view", Loss.teacher_view)
        return len(self.teachers) > 1 and view is not Loss.teacher_view

    @property
    def key(self) -> str:
        """The key of the artifact this spec makes."""
        return content_key({"kind": "student", **self.canonical()})
