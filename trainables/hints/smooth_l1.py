"""Smooth L1 distance of pooled features."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from trainables.hints._projection import linear_where_needed, project, weighted_distance
from trainables.losses._check import one_of
from trainables.protocols import Hint


class SmoothL1(Hint):
    """Smooth L1 distance of pooled features, weighted like the teachers' outputs.

    ``0.5 d^2`` where ``|d| < 1``, else ``|d| - 0.5``. Where a teacher's features are wider or
    narrower than the student's, a linear layer maps the student's to that width.

    Args:
        feat_reduction: ``"mean"`` or ``"sum"`` over the features; the source does not say which.

    Source: eq. (8) of Du, Lv, Sun, CSA 13(8) 2023, doi 10.12677/csa.2023.138150 (our reading).
    """

    def __init__(self, *, feat_reduction: Literal["mean", "sum"] = "mean") -> None:
        super().__init__()
        one_of("feat_reduction", feat_reduction, ("mean", "sum"))
        self.feat_reduction = feat_reduction
        self.projections = nn.ModuleList()

    def setup(
        self,
        student_dim: int,
        teacher_dims: Sequence[int],
        heads: Sequence[tuple[Tensor, Tensor]] | None = None,
    ) -> None:
        """Create a linear map for each teacher of another width."""
        self.projections = linear_where_needed(student_dim, teacher_dims)

    def forward(
        self, student: Tensor, teachers: Sequence[Tensor], weights: Tensor, targets: Tensor
    ) -> Tensor:
        """Return ``[B]`` for student ``[B, D]`` and teachers ``[B, D_k]``."""
        students = project(self.projections, student, teachers, self.precision)
        return weighted_distance(self._distance, students, teachers, weights)

    def _distance(self, student: Tensor, teacher: Tensor) -> Tensor:
        each = F.smooth_l1_loss(student, teacher, reduction="none")
        return each.mean(dim=-1) if self.feat_reduction == "mean" else each.sum(dim=-1)


COMPONENT = SmoothL1
