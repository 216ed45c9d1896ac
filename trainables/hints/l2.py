"""Squared distance of pooled features."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from trainables.hints._projection import linear_where_needed, project, weighted_distance
from trainables.losses._check import one_of
from trainables.protocols import Hint


class L2(Hint):
    """Squared distance of pooled features, weighted like the teachers' outputs.

    Where a teacher's features are wider or narrower than the student's, a linear layer maps the
    student's to that width.

    Args:
        feat_reduction: ``"mean"`` or ``"sum"`` over the features.
        standardise: Bring each row of both sides to mean 0 and variance 1 first, so that only the
            direction counts.

    Source: our reading of the feature term of arXiv 2201.00007 without its second weights.
    """

    def __init__(
        self, *, feat_reduction: Literal["mean", "sum"] = "mean", standardise: bool = False
    ) -> None:
        super().__init__()
        one_of("feat_reduction", feat_reduction, ("mean", "sum"))
        self.feat_reduction = feat_reduction
        self.standardise = standardise
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
        if self.standardise:
            student = F.layer_norm(student, student.shape[-1:])
            teacher = F.layer_norm(teacher, teacher.shape[-1:])
        each = (student - teacher).square()
        return each.mean(dim=-1) if self.feat_reduction == "mean" else each.sum(dim=-1)


COMPONENT = L2
