"""Knowledge distillation by tempered Kullback-Leibler divergence."""

from __future__ import annotations

from torch import Tensor

from trainables.losses._check import number
from trainables.losses._math import kl_divergence, log_probabilities
from trainables.protocols import Loss


class KD(Loss):
    """Kullback-Leibler divergence of the tempered class probabilities, times T^2.

    ``T^2 sum_c p_t(c) [log p_t(c) - log p_s(c)]`` with ``p = softmax(z / T)``. The factor keeps the
    gradient's size nearly independent of ``T``, so that ``T`` and the KD coefficient can be
    searched separately.

    Args:
        temperature: Softmax temperature of both sides; above 0.
        detach_teacher: Stop the gradient at the teacher; False only for jointly trained teachers.

    Source: Hinton, Vinyals, Dean 2015, arXiv 1503.02531, section 2.
    """

    supports_stacked = True

    def __init__(self, *, temperature: float = 4.0, detach_teacher: bool = True) -> None:
        self.temperature = number("temperature", temperature, above=0)
        self.detach_teacher = detach_teacher

    def __call__(self, student_logits: Tensor, teacher_logits: Tensor, targets: Tensor) -> Tensor:
        """Return the loss ``[B]`` of logits ``[B, C]``; labels are not used."""
        if self.detach_teacher:
            teacher_logits = teacher_logits.detach()
        teacher = log_probabilities(teacher_logits, self.temperature)
        student = log_probabilities(student_logits, self.temperature)
        return kl_divergence(teacher, student) * self.temperature**2


COMPONENT = KD
