"""The contracts between the components and the trainer.

Letters in shapes: ``B`` examples of a batch, ``C`` classes, ``K`` teachers, ``D`` features.

A component subclasses its contract to inherit the defaults and the hooks that do nothing. A user's
own loss may also stand alone and define only ``__call__``: its attributes are read through
:func:`trait`, which knows the defaults. The trainer asks for attributes, never for names.

They are plain classes and not ``typing.Protocol``: a protocol replaces the ``__init__`` of its
subclasses by one that seems to accept everything, and the catalog reads signatures.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from torch import Tensor, nn

UNLABELLED = -100
"""The target of a row without a label; such rows take part in label-free terms only."""


class Loss:
    """Compares one student with one teacher.

    Attributes:
        per_sample: The result is ``[B]``; a loss that compares examples with each other sets
            False and returns a scalar.
        supports_stacked: Every row is treated on its own, so that the rows of ``K`` teachers may
            be handed over in one call.
        needs_labels: Reads ``targets``, so unlabelled rows cannot be used.
        min_classes: The smallest number of classes with which the loss is not degenerate.
        temperature: The softmax temperature of the teacher, 1 where the method has none.
    """

    per_sample: bool = True
    supports_stacked: bool = False
    needs_labels: bool = False
    min_classes: int = 2
    temperature: float = 1.0

    def __call__(self, student_logits: Tensor, teacher_logits: Tensor, targets: Tensor) -> Tensor:
        """Return the loss ``[B]``, or a scalar, of ``[B, C]`` student and teacher logits."""
        raise NotImplementedError(f"{type(self).__name__} defines no __call__")

    def teacher_view(self, student_logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Express student logits ``[B, C]`` and targets ``[B]`` in the teachers' label space.

        Weightings compare the student with the teachers; a loss whose teachers know other classes
        than the student translates both here.
        """
        return student_logits, targets


class Weighting:
    """Says how much each teacher counts for each example.

    Attributes:
        needs_labels: Reads ``targets``, so unlabelled rows cannot be used.
        merges: The teachers are merged into one by ``merge`` before the loss.
        needs_feedback: ``feedback`` wants the updated student's logits after each step.
        needs_features: ``__call__`` accepts ``features [B, D]``.
        adaptive: The weights follow the student, or chance; before training none are known.
        selects: Learns which teachers to select; ``selection`` tells what it has learned.
        fallbacks: How many examples got equal weights because theirs were not finite.
    """

    needs_labels: bool = False
    merges: bool = False
    needs_feedback: bool = False
    needs_features: bool = False
    adaptive: bool = False
    selects: bool = False

    @property
    def fallbacks(self) -> int:
        """How many examples so far got equal weights because theirs were not finite."""
        return 0

    def __call__(
        self,
        student_logits: Tensor,
        teacher_logits: Tensor,
        targets: Tensor,
        *,
        features: Tensor | None = None,
    ) -> Tensor:
        """Return weights ``[K, B]`` without gradient, at least 0, for teachers ``[K, B, C]``."""
        raise NotImplementedError(f"{type(self).__name__} defines no __call__")

    def merge(self, teacher_logits: Tensor, temperature: float) -> Tensor:
        """Return one teacher ``[1, B, C]`` made of ``[K, B, C]``; only if ``merges``."""
        raise NotImplementedError(f"{type(self).__name__} does not merge teachers")

    def configure(self, *, scores: Sequence[float], generator_seed: int) -> None:
        """Take what the trial knows before training.

        Args:
            scores: Dev score of each teacher, in the order of the teachers, higher is better.
            generator_seed: Seed of the weighting's own random stream.
        """

    def begin_epoch(self, epoch: int, epochs: int) -> None:
        """Hear that epoch number ``epoch`` (from 0) of ``epochs`` begins."""

    def end_epoch(self) -> dict[str, float]:
        """Return measurements of the epoch that ended, by name."""
        return {}

    def feedback(self, student_logits: Tensor, teacher_logits: Tensor, targets: Tensor) -> None:
        """Learn from the batch last weighted, given the updated student's logits ``[B, C]``."""

    def selection(
        self, teacher_logits: Tensor, targets: Tensor, *, features: Tensor | None = None
    ) -> Tensor | None:
        """Return how likely it selects each teacher for each example, ``[K, B]``; None if unknown.

        Asked after training, only if ``selects``; draws nothing.
        """
        return None

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint must hold; empty for a stateless weighting."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what ``state_dict`` returned."""


class Hint(nn.Module):
    """Compares what lies below or beside the student's probabilities with the teachers'.

    Attributes:
        level: ``"features"`` for pooled features, ``"logits"`` for raw logits.
        needs_labels: Reads ``targets``, so unlabelled rows cannot be used.
        needs_heads: ``setup`` needs the teachers' final linear layers.
        precision: Of the learned maps; the trainer sets that of the student.
    """

    level: Literal["features", "logits"] = "features"
    needs_labels: bool = False
    needs_heads: bool = False
    precision: Literal["fp32", "bf16"] = "fp32"

    def setup(
        self,
        student_dim: int,
        teacher_dims: Sequence[int],
        heads: Sequence[tuple[Tensor, Tensor]] | None = None,
    ) -> None:
        """Create the student-side projections; call once, before the optimizer is made.

        Args:
            student_dim: Width of the student's features.
            teacher_dims: Width of each teacher's features, in the order of the teachers.
            heads: Each teacher's final linear layer, weight ``[C, D_k]`` and bias ``[C]``.
        """

    def forward(
        self,
        student: Tensor,
        teachers: Sequence[Tensor],
        weights: Tensor,
        targets: Tensor,
    ) -> Tensor:
        """Return the distance ``[B]`` of student ``[B, D]`` to the ``K`` teachers ``[B, D_k]``.

        Args:
            student: What the student computed, with gradient.
            teachers: What each teacher computed; never receives a gradient.
            weights: The weighting's result ``[K, B]``.
            targets: Labels ``[B]``.
        """
        raise NotImplementedError(f"{type(self).__name__} defines no forward")


class Schedule:
    """Says which snapshot of the teachers is active when.

    Attributes:
        anchors: Fractions of teacher training whose outputs are wanted, ascending, the last is 1.
    """

    anchors: tuple[float, ...] = (1.0,)

    def __call__(self, epoch: int, epochs: int) -> int:
        """Return the index of the anchor active in epoch ``epoch`` (from 0) of ``epochs``."""
        raise NotImplementedError(f"{type(self).__name__} defines no __call__")

    def due(self, epoch: int, epochs: int) -> bool:
        """Say whether ``advance`` must be called before epoch ``epoch`` begins."""
        return False

    def advance(self, divergences: Sequence[float]) -> int:
        """Choose the next anchor and return its index.

        Args:
            divergences: Mean KL on dev of the present student to every anchor.
        """
        raise NotImplementedError(f"{type(self).__name__} chooses its anchors by epoch only")

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint must hold; empty for a schedule by epoch."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what ``state_dict`` returned."""


def trait(component: object, contract: type[Any], name: str) -> Any:
    """Read an attribute of a component, or the contract's default if it does not define it."""
    return getattr(component, name, getattr(contract, name))
