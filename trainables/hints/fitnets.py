"""FitNets: a regressor from the student's features to each teacher's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn

from trainables.hints._projection import project, weighted_distance
from trainables.losses._check import one_of
from trainables.protocols import Hint


class FitNets(Hint):
    """Squared distance of the teacher's features from a learned map of the student's.

    One linear regressor per teacher, also for equal widths; trained with the student and not
    needed afterwards. Used in one stage beside the other terms; the published coefficient of the
    mean form is 100.

    Args:
        feat_reduction: ``"mean"`` over the features, or ``"half_sum"``, half the sum, as in the
            original.

    Source: Romero et al. 2015, ICLR, arXiv 1412.6550; one-stage form of
        megvii-research/mdistiller@a08d46f10d; the linear regressor for pooled text is our reading.
    """

    def __init__(self, *, feat_reduction: Literal["mean", "half_sum"] = "mean") -> None:
        super().__init__()
        one_of("feat_reduction", feat_reduction, ("mean", "half_sum"))
        self.feat_reduction = feat_reduction
        self.projections = nn.ModuleList()

    def setup(
        self,
        student_dim: int,
        teacher_dims: Sequence[int],
        heads: Sequence[tuple[Tensor, Tensor]] | None = None,
    ) -> None:
        """Create one linear regressor per teacher."""
        self.projections = nn.ModuleList(nn.Linear(student_dim, width) for width in teacher_dims)

    def forward(
        self, student: Tensor, teachers: Sequence[Tensor], weights: Tensor, targets: Tensor
    ) -> Tensor:
        """Return ``[B]`` for student ``[B, D]`` and teachers ``[B, D_k]``."""
        students = project(self.projections, student, teachers, self.precision)
        return weighted_distance(self._distance, students, teachers, weights)

    def _distance(self, student: Tensor, teacher: Tensor) -> Tensor:
        each = (student - teacher).square()
        return each.mean(dim=-1) if self.feat_reduction == "mean" else 0.5 * each.sum(dim=-1)


COMPONENT = FitNets
