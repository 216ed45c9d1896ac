"""Refined logit distillation."""

from __future__ import annotations

from torch import Tensor

from trainables.losses._check import number
from trainables.losses._math import (
    binary_log_probabilities,
    kl_divergence,
    log_probabilities,
    pick,
    upcast,
)
from trainables.protocols import Loss

# Far below any logit over any temperature; minus infinity would make a fully masked row NaN.
_MASKED = -1e9


class RLD(Loss):
    """KD that does not repeat the teacher's mistakes about the label.

    ``alpha T_a^2 SCD + beta T^2 MCD``: SCD compares how sure the teacher is of its first choice
    with how sure the student is of the label, ``[max p_t, 1 - max p_t]`` with
    ``[p_s(y), 1 - p_s(y)]``; MCD is KD among the classes that the teacher ranks below the label.
    SCD is not zero for equal logits where the teacher is wrong.

    Args:
        temperature: Softmax temperature of MCD; above 0.
        temperature_a: Softmax temperature of SCD; above 0.
        alpha: Coefficient of SCD; at least 0.
        beta: Coefficient of MCD; at least 0.

    Source: Sun et al. 2024, arXiv 2408.07703 (our reading); zju-SWJ/RLD@d54578fd77.
    """

    supports_stacked = True
    needs_labels = True

    def __init__(
        self,
        *,
        temperature: float = 4.0,
        temperature_a: float = 1.0,
        alpha: float = 1.0,
        beta: float = 8.0,
    ) -> None:
        self.temperature = number("temperature", temperature, above=0)
        self.temperature_a = number("temperature_a", temperature_a, above=0)
        self.alpha = number("alpha", alpha, least=0)
        self.beta = number("beta", beta, least=0)

    def __call__(self, student_logits: Tensor, teacher_logits: Tensor, targets: Tensor) -> Tensor:
        """Return the loss ``[B]`` of logits ``[B, C]`` and labels ``[B]``."""
        student, teacher = upcast(student_logits), upcast(teacher_logits.detach())
        sample = kl_divergence(
            _confidence(teacher, teacher.argmax(dim=-1), self.temperature_a),
            _confidence(student, targets, self.temperature_a),
        )
        hidden = teacher >= pick(teacher, targets).unsqueeze(-1)  # holds the label itself
        masked = kl_divergence(
            log_probabilities((teacher / self.temperature).masked_fill(hidden, _MASKED)),
            log_probabilities((student / self.temperature).masked_fill(hidden, _MASKED)),
        )
        return (
            self.alpha * self.temperature_a**2 * sample + self.beta * self.temperature**2 * masked
        )


def _confidence(logits: Tensor, index: Tensor, temperature: float) -> Tensor:
    """Return ``[log p_i, log(1 - p_i)]`` ``[B, 2]`` of class ``i = index[b]``."""
    return binary_log_probabilities(log_probabilities(logits, temperature), index)


COMPONENT = RLD
