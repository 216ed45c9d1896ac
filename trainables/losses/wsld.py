"""Weighted soft labels."""

from __future__ import annotations

import torch
from torch import Tensor

from trainables.losses._check import number
from trainables.losses._math import log_probabilities, pick, soft_cross_entropy
from trainables.protocols import Loss

# As in the reference code: keeps the ratio finite for a teacher that is certain and right.
_EPSILON = 1e-7


class WSLD(Loss):
    """Soft cross-entropy, weighted up where the student lags behind the teacher.

    ``T^2 omega soft-CE`` with ``omega = 1 - exp(-CE_s / CE_t)``, both cross-entropies at
    temperature 1 and without gradient. The method adds it with coefficient 2.5 (``alpha`` of the
    objective) to the cross-entropy. On training data ``CE_t`` is nearly zero, so ``omega`` is
    nearly one: out-of-fold outputs make it informative.

    Args:
        temperature: Softmax temperature of the soft cross-entropy; above 0.

    Source: Zhou et al. 2021, ICLR, arXiv 2102.00650;
        bellymonster/Weighted-Soft-Label-Distillation@67820dd7c3.
    """

    supports_stacked = True
    needs_labels = True

    def __init__(self, *, temperature: float = 2.0) -> None:
        self.temperature = number("temperature", temperature, above=0)

    def __call__(self, student_logits: Tensor, teacher_logits: Tensor, targets: Tensor) -> Tensor:
        """Return the loss ``[B]`` of logits ``[B, C]`` and labels ``[B]``."""
        teacher_logits = teacher_logits.detach()
        student_ce = -pick(log_probabilities(student_logits.detach()), targets)
        teacher_ce = -pick(log_probabilities(teacher_logits), targets)
        omega = -torch.expm1(-student_ce / (teacher_ce + _EPSILON))
        soft = soft_cross_entropy(
            log_probabilities(teacher_logits, self.temperature),
            log_probabilities(student_logits, self.temperature),
        )
        return self.temperature**2 * omega * soft


COMPONENT = WSLD
