"""The feature term of CA-MKD, with weights of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainables.hints._projection import project, weighted_distance
from trainables.losses._check import one_of
from trainables.losses._math import upcast
from trainables.protocols import Hint
from trainables.weightings._guard import inverse_confidence, teacher_cross_entropy


class CAMKD(Hint):
    """Squared feature distance, weighted by how well each teacher's head reads the student.

    Per teacher, the student's features pass a learned map and then the teacher's own frozen
    classifier; the cross-entropies give ``v_k = (1 - softmax_k CE) / (K - 1)``. These weights
    replace those of the weighting. They carry no gradient: with one, the student could lower the
    loss by making its own hint predictions wrong. The published coefficient is 50.

    Args:
        activation: ``"relu"`` after the map's normalisation; ``"none"`` for teachers whose
            features may be negative, such as mean-pooled encoders.
        normalize: ``"sum1"``, or ``"official"`` for the further ``1 / K`` of the reference code.

    Source: Zhang, Chen, Wang 2022, arXiv 2201.00007, intermediate term; Rorozhl/CA-MKD@c2f39a9f13;
        linear map, LayerNorm and detached weights are our reading.
    """

    needs_labels = True
    needs_heads = True

    def __init__(
        self,
        *,
        activation: Literal["relu", "none"] = "relu",
        normalize: Literal["sum1", "official"] = "sum1",
    ) -> None:
        super().__init__()
        one_of("activation", activation, ("relu", "none"))
        one_of("normalize", normalize, ("sum1", "official"))
        self.activation = activation
        self.normalize = normalize
        self.projections = nn.ModuleList()

    def setup(
        self,
        student_dim: int,
        teacher_dims: Sequence[int],
        heads: Sequence[tuple[Tensor, Tensor]] | None = None,
    ) -> None:
        """Create one map per teacher and keep the teachers' classifiers.

        Raises:
            ValueError: There is not one head, weight ``[C, D_k]`` and bias ``[C]``, per teacher.
        """
        if heads is None or len(heads) != len(teacher_dims):
            given = 0 if heads is None else len(heads)
            raise ValueError(
                f"ca_mkd needs the final linear layer of each teacher, but got {given} for "
                f"{len(teacher_dims)} teachers; compute the teachers' outputs with features"
            )
        self.projections = nn.ModuleList(self._map(student_dim, width) for width in teacher_dims)
        for index, (weight, bias) in enumerate(heads):
            # Buffers: moved with the module, never trained.
            self.register_buffer(f"weight_{index}", upcast(weight.detach()).clone())
            self.register_buffer(f"bias_{index}", upcast(bias.detach()).clone())

    def forward(
        self, student: Tensor, teachers: Sequence[Tensor], weights: Tensor, targets: Tensor
    ) -> Tensor:
        """Return ``[B]`` for student ``[B, D]`` and teachers ``[B, D_k]``."""
        students = project(self.projections, student, teachers, self.precision)
        with torch.no_grad():
            logits = [
                F.linear(mine, self.get_buffer(f"weight_{k}"), self.get_buffer(f"bias_{k}"))
                for k, mine in enumerate(students)
            ]
        return self.combine(students, torch.stack(logits), teachers, targets)

    def combine(
        self,
        students: Sequence[Tensor],
        logits: Tensor,
        teachers: Sequence[Tensor],
        targets: Tensor,
    ) -> Tensor:
        """Weigh the mean squared feature distances by the head's cross-entropies.

        Args:
            students: Mapped student features ``[B, D_k]`` for each teacher.
            logits: What each teacher's classifier says of them, ``[K, B, C]``.
            teachers: The teachers' features ``[B, D_k]``.
            targets: Labels ``[B]``.

        Returns:
            The weighted distance ``[B]``.
        """
        weights = inverse_confidence(teacher_cross_entropy(logits.detach(), targets))
        if self.normalize == "official":
            weights = weights / len(weights)
        return weighted_distance(_mean_square, students, teachers, weights)

    def _map(self, student_dim: int, width: int) -> nn.Sequential:
        last = nn.ReLU() if self.activation == "relu" else nn.Identity()
        return nn.Sequential(nn.Linear(student_dim, width), nn.LayerNorm(width), last)


def _mean_square(student: Tensor, teacher: Tensor) -> Tensor:
    return (student - teacher).square().mean(dim=-1)


COMPONENT = CAMKD
