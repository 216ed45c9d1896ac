"""Joint training: teacher and student learn at the same time, with a live teacher.

Schemes of the article on spam opinions (METHODS 9), by who sends gradients to whom:

- ``isolated`` (its scheme 2): the teacher learns from the labels only; the student imitates the
  teacher of this very step.
- ``coupled`` (scheme 3): the divergence pulls on the teacher as well. Two optimizers.
- ``summed`` (scheme 4): the same sum under one optimizer, one learning rate and one gradient
  clipping. Without shared weights that is all that differs from ``coupled``.

Both are in training mode, so the student imitates a teacher under dropout.

Legend: N rows, B batch, C classes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, nn
from torch.nn import functional

from trainables import catalog
from trainables.batching import LengthBuckets, gather
from trainables.checkpoint import Checkpoint
from trainables.device import autocast, pick_device, resolve_precision
from trainables.encoded import Encoded
from trainables.errors import TrialFailed
from trainables.evaluation import Predictor, open_encoded
from trainables.loop import Fit
from trainables.losses._math import upcast
from trainables.metrics import classification_metrics
from trainables.microbatch import LossParts
from trainables.models._output import ModelOutput
from trainables.outputs import positions
from trainables.protocols import Loss
from trainables.seeding import batch_generator, seed_torch
from trainables.store import Store, content_key
from trainables.student import build_model as build_student
from trainables.student import draw_rows
from trainables.student_spec import StudentSpec
from trainables.teacher import TeacherSpec
from trainables.teacher import build_model as build_teacher
from trainables.trained import Predictions, report_and_store

Scheme = Literal["isolated", "coupled", "summed"]

_UNUSED = ("teachers", "transfer", "weighting", "hint", "beta", "schedule")


@dataclass(frozen=True)
class JointSpec:
    """Everything that determines a student and the teacher it grows up with.

    Attributes:
        scheme: Who sends gradients to whom, see the module.
        teacher: The teacher; ``epochs``, ``rows`` and ``fold`` are not used, it sees what the
            student sees.
        student: The student, without teachers; its ``loss``, ``alpha`` and ``ce_weight`` weigh
            the divergence and the labels.
    """

    scheme: Scheme
    teacher: TeacherSpec
    student: StudentSpec

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> JointSpec:
        """Read it back from JSON values."""
        return cls(
            values["scheme"],
            TeacherSpec.from_dict(values["teacher"]),
            StudentSpec.from_dict(values["student"]),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {
            "scheme": self.scheme,
            "teacher": self.teacher.to_dict(),
            "student": self.student.to_dict(),
            "epochs": self.student.epochs,
        }

    @property
    def key(self) -> str:
        """The key of the artifact this spec makes."""
        student = {k: v for k, v in self.student.to_dict().items() if k not in _UNUSED}
        payload = {"scheme": self.scheme, "teacher": self.teacher.key, "student": student}
        return content_key({"kind": "joint", **payload})


def run(
    spec: JointSpec, store: Store, checkpoint: Checkpoint | None = None
) -> Iterator[dict[str, Any]]:
    """Train both and store the student; yields one report per epoch.

    Raises:
        NonFiniteLoss: Training diverged.
        TrialFailed: The loss stops the gradient that the scheme sends to the teacher.
        DataError: Teacher and student do not have the same rows.
    """
    seed_torch(spec.student.seed)
    training = _Training(spec, store)
    student = spec.student
    fit = Fit(
        training.student,
        extra=training.teacher,
        epochs=student.epochs,
        steps_per_epoch=-(-training.n_rows // student.batch_size),
        batches=training.batches,
        forward=training.forward,
        loss=training.loss,
        evaluate=training.evaluate,
        optimizer=spec.teacher.optimizer if spec.scheme == "summed" else student.optimizer,
        # One rate for both starves a CNN or destroys an encoder; it is the encoder's here.
        extra_optimizer=None if spec.scheme == "summed" else spec.teacher.optimizer,
        generator=training.generator,
        checkpoint=checkpoint,
    )
    yield from report_and_store(
        fit,
        store,
        kind="joint",
        key=spec.key,
        predict=training.predict_dev,
        checkpoint=checkpoint,
        meta={"spec": spec.to_dict(), "precision": training.precision},
    )


class _Training:
    """Two models and the rows both see, as the loop needs them."""

    def __init__(self, spec: JointSpec, store: Store) -> None:
        self.spec = spec
        self.device = pick_device()
        self.precision = resolve_precision(spec.student.precision, self.device)
        self.rows = open_encoded(store, spec.student.train)
        self.teacher_rows = open_encoded(store, spec.teacher.train)
        # Each model has its own tokenizer, so rows are matched by example id.
        self.matching = positions(self.rows.ids, self.teacher_rows.ids, "the teacher's rows")
        self.n_rows = spec.student.rows_per_epoch or len(self.rows)
        self.dev = Predictor(open_encoded(store, spec.student.dev), device=self.device)
        self.teacher_dev = Predictor(open_encoded(store, spec.teacher.dev), device=self.device)
        self.student = build_student(spec.student, store).to(self.device)
        self.teacher = build_teacher(spec.teacher).to(self.device)
        self.divergence = build_divergence(spec.student.loss, spec.scheme)
        self.generator = batch_generator(spec.student.seed)

    def batches(self, epoch: int) -> Iterator[Tensor]:
        """Yield the row numbers ``[B]`` of each batch of an epoch."""
        self.teacher.train()
        order = draw_rows(len(self.rows), self.n_rows, self.generator)
        buckets = LengthBuckets(
            self.rows.lengths[order], self.spec.student.batch_size, self.generator
        )
        for index in buckets:
            yield order[index]

    def forward(self, index: Tensor) -> ModelOutput:
        """Run both on rows ``[B]``; the teacher's logits travel in the place of features."""
        mine = self._logits(self.student, self.rows, index)
        theirs = self._logits(self.teacher, self.teacher_rows, self.matching[index])
        return ModelOutput(mine, theirs)

    def loss(self, index: Tensor, output: ModelOutput) -> tuple[Tensor, LossParts]:
        """Return the sum of both objectives on rows ``[B]`` and its parts."""
        return joint_loss(
            output.logits,
            output.features,
            self.rows.labels[index].to(self.device),
            self.divergence,
            scheme=self.spec.scheme,
            ce_weight=self.spec.student.ce_weight,
            alpha=self.spec.student.alpha,
        )

    def evaluate(self) -> dict[str, float]:
        """Return the dev metrics of the student and, marked, those of the teacher."""
        metrics = classification_metrics(*self.predict_dev()[1:], "val_")
        with autocast(self.precision, self.device):
            logits, _ = self.teacher_dev(self.teacher)
        theirs = classification_metrics(logits, self.teacher_dev.targets, "teacher_val_")
        return {**metrics, **theirs}

    def predict_dev(self) -> Predictions:
        """Return ids ``[N]``, the student's logits ``[N, C]`` and targets ``[N]`` of dev."""
        with autocast(self.precision, self.device):
            logits, _ = self.dev(self.student)
        return self.dev.ids, logits, self.dev.targets

    def _logits(self, model: nn.Module, rows: Encoded, index: Tensor) -> Tensor:
        input_ids, mask = gather(rows, index)
        with autocast(self.precision, self.device):
            output: ModelOutput = model(input_ids.to(self.device), mask.to(self.device))
        return output.logits


def build_divergence(loss: Mapping[str, Any], scheme: Scheme) -> Loss:
    """Make the loss between student and teacher, open to the teacher where the scheme wants it.

    Raises:
        TrialFailed: The scheme wants a gradient that this loss always stops.
    """
    params = {name: value for name, value in loss.items() if name != "name"}
    if scheme != "isolated":
        if not reaches_teacher(loss["name"]):
            raise TrialFailed(
                f"scheme {scheme!r} trains the teacher through the loss, but {loss['name']!r} "
                "stops the gradient at the teacher; use kd or mse_logits"
            )
        params["detach_teacher"] = False
    made: Loss = catalog.build("losses", loss["name"], **params)
    return made


def reaches_teacher(loss: str) -> bool:
    """Tell whether a loss can send a gradient to the teacher."""
    return "detach_teacher" in {p.name for p in catalog.parameters("losses", loss)}


def joint_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    targets: Tensor,
    divergence: Loss,
    *,
    scheme: Scheme,
    ce_weight: float,
    alpha: float,
) -> tuple[Tensor, LossParts]:
    """Return ``CE_t + ce_weight CE_s + alpha D`` and its parts.

    One backward pass of the sum gives each side its own objective: cross-entropies share no
    weights, and the teacher is detached in ``D`` where it must not feel it.

    Args:
        student_logits: ``[B, C]``.
        teacher_logits: ``[B, C]``, with gradient.
        targets: ``[B]``.
        divergence: Compares the two.
        scheme: ``isolated`` detaches the teacher in ``D``.
        ce_weight: Weight of the student's labels.
        alpha: Weight of ``D``.
    """
    imitated = teacher_logits.detach() if scheme == "isolated" else teacher_logits
    teacher_ce = functional.cross_entropy(upcast(teacher_logits), targets)
    student_ce = functional.cross_entropy(upcast(student_logits), targets)
    distance = divergence(student_logits, imitated, targets).mean()
    total = teacher_ce + ce_weight * student_ce + alpha * distance
    parts = {"ce": student_ce, "teacher_ce": teacher_ce, "kd": distance}
    return total, {name: part.detach() for name, part in parts.items()}
