"""Distillation by alpha-beta divergence."""

from __future__ import annotations

import torch
from torch import Tensor

from trainables.losses._check import number
from trainables.losses._math import log_probabilities
from trainables.protocols import Loss


class ABKD(Loss):
    """Alpha-beta divergence, from forward KL (1, 0) to reverse KL (0, 1).

    ``-1/(ab) sum_c [p_t^a p_s^b - a/(a+b) p_t^(a+b) - b/(a+b) p_s^(a+b)]`` of the tempered
    probabilities, continued to its limits where ``a`` or ``b`` is 0. No ``T^2``; published with
    coefficients of 32 to 64.

    Args:
        temperature: Softmax temperature of both sides; above 0.
        alpha: Exponent ``a``; at least 0.
        beta: Exponent ``b``; at least 0.

    Source: Wang et al. 2025, ICML, arXiv 2505.04560 (our reading); ghwang-s/abkd@df813185e6.
    """

    supports_stacked = True

    def __init__(self, *, temperature: float = 4.0, alpha: float = 0.8, beta: float = 0.3) -> None:
        self.temperature = number("temperature", temperature, above=0)
        self.alpha = number("alpha", alpha, least=0)
        self.beta = number("beta", beta, least=0)

    def __call__(self, student_logits: Tensor, teacher_logits: Tensor, targets: Tensor) -> Tensor:
        """Return the loss ``[B]`` of logits ``[B, C]``; labels are not used."""
        teacher = log_probabilities(teacher_logits.detach(), self.temperature)
        student = log_probabilities(student_logits, self.temperature)
        return _divergence(teacher, student, self.alpha, self.beta)


def _divergence(teacher: Tensor, student: Tensor, a: float, b: float) -> Tensor:
    """Return the divergence ``[B]`` of log-probabilities ``[B, C]``."""
    if a == 0 and b == 0:
        return 0.5 * (teacher - student).square().sum(dim=-1)
    if b == 0:
        return _one_sided(teacher, student, a)
    if a == 0:
        return _one_sided(student, teacher, b)
    mixed = torch.exp(a * teacher + b * student)
    teacher_part = torch.exp((a + b) * teacher) * (a / (a + b))
    student_part = torch.exp((a + b) * student) * (b / (a + b))
    return -(mixed - teacher_part - student_part).sum(dim=-1) / (a * b)


def _one_sided(first: Tensor, second: Tensor, power: float) -> Tensor:
    """Return the limit in which the other exponent vanishes; forward KL for ``power`` 1."""
    first_p, second_p = torch.exp(power * first), torch.exp(power * second)
    terms = power * first_p * (first - second) - first_p + second_p
    return terms.sum(dim=-1) / power**2


COMPONENT = ABKD
