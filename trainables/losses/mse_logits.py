"""Matching of raw logits."""

from __future__ import annotations

from torch import Tensor

from trainables.losses._math import upcast
from trainables.protocols import Loss


class MSELogits(Loss):
    """Mean squared difference of the raw logits.

    ``mean_c (z_s - z_t)^2``. A softmax ignores a constant added to all logits of a row, this loss
    does not: ``center`` removes the row means, so that the student need not learn the teacher's
    irrelevant offset.

    Args:
        center: Subtract each row's mean from both sides first.
        detach_teacher: Stop the gradient at the teacher; False only for jointly trained teachers.

    Source: Ba and Caruana 2014, arXiv 1312.6184, in the mean form of later code (our reading).
    """

    supports_stacked = True

    def __init__(self, *, center: bool = False, detach_teacher: bool = True) -> None:
        self.center = center
        self.detach_teacher = detach_teacher

    def __call__(self, student_logits: Tensor, teacher_logits: Tensor, targets: Tensor) -> Tensor:
        """Return the loss ``[B]`` of logits ``[B, C]``; labels are not used."""
        if self.detach_teacher:
            teacher_logits = teacher_logits.detach()
        difference = upcast(student_logits) - upcast(teacher_logits)
        if self.center:
            # The row means of both sides leave together.
            difference = difference - difference.mean(dim=-1, keepdim=True)
        return difference.square().mean(dim=-1)


COMPONENT = MSELogits
