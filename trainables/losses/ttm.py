"""Transformed teacher matching."""

from __future__ import annotations

from torch import Tensor

from trainables.losses._check import number
from trainables.losses._math import kl_divergence, log_probabilities
from trainables.losses._power import power_transform
from trainables.protocols import Loss


class TTM(Loss):
    """KL to the teacher's power-transformed probabilities, the student untempered.

    ``KL(p_t^gamma / U || p_s)``: the same as teacher temperature ``1 / gamma`` with student
    temperature 1, and no ``T^2``. Not zero for equal logits. Published with coefficient 45.

    Args:
        gamma: Exponent of the teacher's probabilities; above 0.

    Source: Zheng and Yang 2024, ICLR, arXiv 2402.11148; zkxufo/TTM@fe457b33a7.
    """

    supports_stacked = True

    def __init__(self, *, gamma: float = 0.1) -> None:
        self.gamma = number("gamma", gamma, above=0)

    def __call__(self, student_logits: Tensor, teacher_logits: Tensor, targets: Tensor) -> Tensor:
        """Return the loss ``[B]`` of logits ``[B, C]``; labels are not used."""
        teacher, _ = power_transform(teacher_logits.detach(), self.gamma)
        return kl_divergence(teacher, log_probabilities(student_logits))


COMPONENT = TTM
