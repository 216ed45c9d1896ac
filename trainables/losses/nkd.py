"""Normalised knowledge distillation."""

from __future__ import annotations

from torch import Tensor

from trainables.losses._check import number
from trainables.losses._math import drop, log_probabilities, pick, soft_cross_entropy
from trainables.protocols import Loss


class NKD(Loss):
    """Soft label for the target class, and KD among the other classes after renormalising.

    ``-p_t(y) log p_s(y) - gamma T^2 sum_{c != y} q_t(c) log q_s(c)``: the first term at
    temperature 1, ``q`` the softmax over the other classes at ``T``. A cross-entropy, so its
    smallest value is not zero. On two classes the second term is always zero.

    Args:
        temperature: Softmax temperature of the second term; above 0.
        gamma: Coefficient of the second term; at least 0.

    Source: Yang et al. 2023, ICCV, arXiv 2303.13005; yzd-v/cls_KD@1e5d48f369.
    """

    supports_stacked = True
    needs_labels = True
    min_classes = 3

    def __init__(self, *, temperature: float = 1.0, gamma: float = 1.5) -> None:
        self.temperature = number("temperature", temperature, above=0)
        self.gamma = number("gamma", gamma, least=0)

    def __call__(self, student_logits: Tensor, teacher_logits: Tensor, targets: Tensor) -> Tensor:
        """Return the loss ``[B]`` of logits ``[B, C]`` and labels ``[B]``."""
        student = log_probabilities(student_logits)
        teacher = log_probabilities(teacher_logits.detach())
        target = -pick(teacher, targets).exp() * pick(student, targets)
        others = soft_cross_entropy(
            log_probabilities(drop(teacher, targets), self.temperature),
            log_probabilities(drop(student, targets), self.temperature),
        )
        return target + self.gamma * self.temperature**2 * others


COMPONENT = NKD
