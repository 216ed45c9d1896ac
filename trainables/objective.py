"""The training objective: labels, teachers and hints in one number.

``L = ce_weight * CE + alpha * mean_b sum_k w[k, b] loss_k[b] + beta * mean_b hint[b]``.
Letters: ``B`` examples, ``C`` classes, ``K`` teachers, ``D`` features. Rows without a label
(``targets == -100``) take part in the label-free terms only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainables.losses._check import number
from trainables.losses._math import upcast
from trainables.protocols import UNLABELLED, Hint, Loss, Weighting, trait


class ObjectiveValue(NamedTuple):
    """What a batch costs.

    Attributes:
        total: Scalar with gradient.
        parts: Detached scalars on the batch's device: ``ce``; with teachers also
            ``weight_entropy`` (nats, mean over examples) and ``weight_mass`` (mean of the sum of
            the weights), ``kd`` and ``hint`` where they were computed.
    """

    total: Tensor
    parts: dict[str, Tensor]


class Objective(nn.Module):
    """Adds up cross-entropy, distillation loss and hint.

    Args:
        loss: Compares the student with one teacher.
        weighting: How much each teacher counts for each example.
        hint: Compares features or raw logits; None for no hint, and then ``beta`` is not used.
        ce_weight: Coefficient of the cross-entropy with the labels; at least 0.
        alpha: Coefficient of the distillation loss; at least 0.
        beta: Coefficient of the hint; at least 0.

    Raises:
        ValueError: A coefficient is negative or not finite.
    """

    def __init__(
        self,
        *,
        loss: Loss,
        weighting: Weighting,
        hint: Hint | None = None,
        ce_weight: float = 1.0,
        alpha: float = 1.0,
        beta: float = 0.0,
    ) -> None:
        super().__init__()
        self.ce_weight = number("ce_weight", ce_weight, least=0)
        self.alpha = number("alpha", alpha, least=0)
        self.beta = number("beta", beta, least=0) if hint is not None else 0.0
        self.loss = loss
        self.weighting = weighting
        self.hint = hint
        self._needing_labels = label_free(
            loss if self.alpha > 0 else None, weighting, hint if self.beta > 0 else None
        )

    @property
    def uses_teachers(self) -> bool:
        """Whether any term looks at the teachers at all."""
        return self.alpha > 0 or self.beta > 0

    def forward(
        self,
        student_logits: Tensor,
        targets: Tensor,
        teacher_logits: Tensor | None = None,
        student_features: Tensor | None = None,
        teacher_features: Sequence[Tensor] | None = None,
        embeddings: Tensor | None = None,
    ) -> ObjectiveValue:
        """Compute the objective of one batch, in float32 or better also under autocast.

        Args:
            student_logits: ``[B, C]``, with gradient.
            targets: Labels ``[B]``, -100 where there is none.
            teacher_logits: ``[K, B, C]``; None trains on the labels alone.
            student_features: ``[B, D]``, for hints on features.
            teacher_features: ``[B, D_k]`` of each teacher, for hints on features.
            embeddings: Fixed sentence embeddings ``[B, D]``, for weightings that look at the text.

        Raises:
            ValueError: Unlabelled rows meet a component that needs labels, a hint lacks its
                features, or the loss is degenerate for this number of classes.
        """
        with torch.autocast(student_logits.device.type, enabled=False):
            student_logits = upcast(student_logits)
            ce = _cross_entropy(student_logits, targets)
            parts = {"ce": ce.detach()}
            total = self.ce_weight * ce
            if teacher_logits is None or not self.uses_teachers:
                return ObjectiveValue(total, parts)
            self._check(student_logits, targets)
            teacher_logits = upcast(teacher_logits.detach())
            features = student_features if embeddings is None else embeddings
            weights = self._weights(student_logits, teacher_logits, targets, features)
            parts["weight_entropy"] = torch.special.entr(weights).sum(dim=0).mean()
            parts["weight_mass"] = weights.sum(dim=0).mean()
            if self.alpha > 0:
                kd = self._distill(student_logits, teacher_logits, targets, weights)
                parts["kd"] = kd.detach()
                total = total + self.alpha * kd
            if self.hint is not None and self.beta > 0:
                mine, theirs = _hint_inputs(
                    self.hint, student_logits, teacher_logits, student_features, teacher_features
                )
                hint = self.hint(mine, theirs, weights, targets).mean()
                parts["hint"] = hint.detach()
                total = total + self.beta * hint
            return ObjectiveValue(total, parts)

    @torch.no_grad()
    def feedback(self, student_logits: Tensor, teacher_logits: Tensor, targets: Tensor) -> None:
        """Show the weighting what the last step did to the student; it may ignore that.

        Args:
            student_logits: Of the updated student in eval mode, ``[B, C]``, same batch.
            teacher_logits: ``[K, B, C]``.
            targets: Labels ``[B]``.
        """
        if trait(self.weighting, Weighting, "needs_feedback"):
            student, targets = self._view(upcast(student_logits), targets)
            self.weighting.feedback(student, upcast(teacher_logits), targets)

    @torch.no_grad()
    def selection(
        self,
        student_logits: Tensor,
        teacher_logits: Tensor,
        targets: Tensor,
        *,
        features: Tensor | None = None,
    ) -> tuple[Tensor, Tensor] | None:
        """Ask the weighting which teachers it would select; None if it learns no selection.

        Args:
            student_logits: ``[B, C]``.
            teacher_logits: ``[K, B, C]``.
            targets: Labels ``[B]``.
            features: Of the student, ``[B, D]``.

        Returns:
            Probabilities ``[K, B]``, and the labels ``[B]`` as the teachers know them.
        """
        _, targets = self._view(upcast(student_logits), targets)
        teachers = upcast(teacher_logits)
        found: Tensor | None = self.weighting.selection(teachers, targets, features=features)
        return None if found is None else (found, targets)

    def _view(self, student: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return student and targets in the label space of the teachers."""
        if not hasattr(self.loss, "teacher_view"):
            return student, targets
        return self.loss.teacher_view(student, targets)

    def _check(self, student_logits: Tensor, targets: Tensor) -> None:
        classes, least = student_logits.shape[1], trait(self.loss, Loss, "min_classes")
        if self.alpha > 0 and classes < least:
            raise ValueError(
                f"{type(self.loss).__name__} is degenerate below {least} classes, but got "
                f"{classes}; use kd, ttm, wttm, wsld or abkd"
            )
        if self._needing_labels and bool((targets == UNLABELLED).any()):
            raise ValueError(
                f"{', '.join(self._needing_labels)} cannot use rows without a label; "
                "train without the transfer rows or choose label-free components"
            )

    def _weights(
        self, student: Tensor, teachers: Tensor, targets: Tensor, features: Tensor | None
    ) -> Tensor:
        """Return the weights ``[K, B]`` of teachers ``[K, B, C]``, without gradient."""
        with torch.no_grad():
            student, targets = self._view(student.detach(), targets)
            if trait(self.weighting, Weighting, "needs_features"):
                detached = features.detach() if features is not None else None
                return self.weighting(student, teachers, targets, features=detached)
            return self.weighting(student, teachers, targets)

    def _distill(
        self, student: Tensor, teachers: Tensor, targets: Tensor, weights: Tensor
    ) -> Tensor:
        """Return the scalar ``mean_b sum_k w[k, b] loss_k[b]``."""
        if trait(self.weighting, Weighting, "merges"):
            temperature = trait(self.loss, Loss, "temperature")
            teachers = self.weighting.merge(teachers, temperature)
            weights = weights.sum(dim=0, keepdim=True)
        if not trait(self.loss, Loss, "per_sample"):
            losses = torch.stack([self.loss(student, teacher, targets) for teacher in teachers])
            return (weights.mean(dim=1) * losses).sum()
        return (weights * self._per_sample(student, teachers, targets)).sum(dim=0).mean()

    def _per_sample(self, student: Tensor, teachers: Tensor, targets: Tensor) -> Tensor:
        """Return the losses ``[K, B]`` of each teacher ``[K, B, C]`` and example."""
        count = len(teachers)
        if count == 1 or not trait(self.loss, Loss, "supports_stacked"):
            return torch.stack([self.loss(student, teacher, targets) for teacher in teachers])
        rows = student.expand(count, -1, -1).flatten(0, 1)  # [K * B, C]
        stacked = self.loss(rows, teachers.flatten(0, 1), targets.repeat(count))
        return stacked.view(count, -1)


def label_free(
    loss: object | None, weighting: object | None, hint: object | None = None
) -> list[str]:
    """Return the class names of those components that need labels; empty means label-free.

    None stands for a component that is not used.
    """
    parts = (loss, weighting, hint)
    return [type(part).__name__ for part in parts if getattr(part, "needs_labels", False)]


def _cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the mean over the labelled rows, 0 if there are none (the plain mean is NaN)."""
    labelled = (targets != UNLABELLED).sum().clamp(min=1)
    return F.cross_entropy(logits, targets, ignore_index=UNLABELLED, reduction="sum") / labelled


def _hint_inputs(
    hint: Hint,
    student_logits: Tensor,
    teacher_logits: Tensor,
    student_features: Tensor | None,
    teacher_features: Sequence[Tensor] | None,
) -> tuple[Tensor, Sequence[Tensor]]:
    if hint.level == "logits":
        return student_logits, list(teacher_logits)
    if student_features is None or teacher_features is None:
        raise ValueError(
            f"{type(hint).__name__} compares features, but the batch has none; "
            "keep the teachers' features when their outputs are computed"
        )
    return student_features, teacher_features
