"""Decoupled knowledge distillation."""

from __future__ import annotations

from torch import Tensor

from trainables.losses._check import number
from trainables.losses._math import (
    binary_log_probabilities,
    drop,
    kl_divergence,
    log_probabilities,
)
from trainables.protocols import Loss


class DKD(Loss):
    """Splits KD into the label against the rest, and the rest among themselves.

    ``T^2 (alpha TCKD + beta NCKD)``: TCKD is the divergence of ``[p_y, 1 - p_y]``, NCKD that of
    the softmax over the other classes; ``KL = TCKD + (1 - p_t(y)) NCKD``. The label is used even
    where the teacher is wrong. On two classes NCKD is always zero. The warm-up of the reference
    code is left to the trainer.

    Args:
        temperature: Softmax temperature of both sides; above 0.
        alpha: Coefficient of TCKD; at least 0.
        beta: Coefficient of NCKD; at least 0.

    Source: Zhao et al. 2022, CVPR, arXiv 2203.08679; megvii-research/mdistiller@a08d46f10d.
    """

    supports_stacked = True
    needs_labels = True
    min_classes = 3

    def __init__(self, *, temperature: float = 4.0, alpha: float = 1.0, beta: float = 8.0) -> None:
        self.temperature = number("temperature", temperature, above=0)
        self.alpha = number("alpha", alpha, least=0)
        self.beta = number("beta", beta, least=0)

    def __call__(self, student_logits: Tensor, teacher_logits: Tensor, targets: Tensor) -> Tensor:
        """Return the loss ``[B]`` of logits ``[B, C]`` and labels ``[B]``."""
        student = log_probabilities(student_logits, self.temperature)
        teacher = log_probabilities(teacher_logits.detach(), self.temperature)
        target = kl_divergence(
            binary_log_probabilities(teacher, targets), binary_log_probabilities(student, targets)
        )
        # Log-probabilities are logits too: normalised again after the label's column is gone.
        others = kl_divergence(
            log_probabilities(drop(teacher, targets)), log_probabilities(drop(student, targets))
        )
        return self.temperature**2 * (self.alpha * target + self.beta * others)


COMPONENT = DKD
