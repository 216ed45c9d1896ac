"""A second classifier on the student's features that imitates teachers of other classes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from trainables.hints._projection import weighted_distance
from trainables.losses._check import number
from trainables.losses._math import kl_divergence, log_probabilities, upcast
from trainables.protocols import Hint


class AuxiliaryHead(Hint):
    """Distils teachers into an extra linear head on the student's features.

    ``T^2 KL(p_k || softmax(A_k f_s / T))`` with one trainable ``A_k`` per teacher, which is not
    part of the student afterwards. The teachers may know other classes than the student, such as
    superclasses: only the features have to serve both. The teachers' logits are computed from
    their cached features and last layers.

    Args:
        temperature: Softmax temperature of both sides; above 0.

    Source: our reading of Yu and Kim, JKSCI 27(10) 2022, doi 10.9708/jksci.2022.27.10.029: the
        form closest to distilling a different concept.
    """

    needs_heads = True

    def __init__(self, *, temperature: float = 4.0) -> None:
        super().__init__()
        self.temperature = number("temperature", temperature, above=0)
        self.heads = nn.ModuleList()

    def setup(
        self,
        student_dim: int,
        teacher_dims: Sequence[int],
        heads: Sequence[tuple[Tensor, Tensor]] | None = None,
    ) -> None:
        """Create a head for each teacher and keep the teachers' last layers, frozen.

        Raises:
            ValueError: A teacher's last layer is missing.
        """
        given = list(heads or [])
        if len(given) != len(teacher_dims):
            raise ValueError(
                f"auxiliary_head needs the final linear layer of each of {len(teacher_dims)} "
                f"teachers, but got {len(given)}; cache the outputs with features"
            )
        self.heads = nn.ModuleList(nn.Linear(student_dim, len(bias)) for _, bias in given)
        for number_, (weight, bias) in enumerate(given):
            self.register_buffer(f"weight_{number_}", upcast(weight.detach()))
            self.register_buffer(f"bias_{number_}", upcast(bias.detach()))

    def forward(
        self, student: Tensor, teachers: Sequence[Tensor], weights: Tensor, targets: Tensor
    ) -> Tensor:
        """Return ``[B]`` for student ``[B, D]`` and teachers ``[B, D_k]``.

        Raises:
            ValueError: The hint was set up for other teachers.
        """
        if len(teachers) != len(self.heads):
            raise ValueError(
                f"the hint was set up for {len(self.heads)} teachers, but got features of "
                f"{len(teachers)}; call setup with the width of each teacher first"
            )
        mine = [head(upcast(student)) for head in self.heads]  # K of [B, S_k]
        theirs = [self._logits(k, upcast(teacher.detach())) for k, teacher in enumerate(teachers)]
        return weighted_distance(self._divergence, mine, theirs, weights)

    def _logits(self, k: int, features: Tensor) -> Tensor:
        """Return the logits ``[B, S_k]`` of teacher ``k`` from its features ``[B, D_k]``."""
        weight, bias = self.get_buffer(f"weight_{k}"), self.get_buffer(f"bias_{k}")
        if features.shape[-1] != weight.shape[-1]:
            raise ValueError(
                f"teacher {k} gives features of width {features.shape[-1]}, but its last layer "
                f"takes {weight.shape[-1]}; setup was called with another width"
            )
        return torch.nn.functional.linear(features, weight, bias)

    def _divergence(self, student: Tensor, teacher: Tensor) -> Tensor:
        teacher_log_p = log_probabilities(teacher, self.temperature)
        student_log_p = log_probabilities(student, self.temperature)
        divergence = kl_divergence(teacher_log_p, student_log_p)
        return divergence.clamp(min=0) * self.temperature**2  # rounding can make 0 negative


COMPONENT = AuxiliaryHead
