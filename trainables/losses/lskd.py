"""Knowledge distillation of standardised logits."""

from __future__ import annotations

from torch import Tensor

from trainables.losses._check import number
from trainables.losses._math import kl_divergence, log_probabilities, upcast
from trainables.protocols import Loss

# As in the reference code: keeps a row of equal logits finite.
_EPSILON = 1e-7


class LSKD(Loss):
    """KD of logits standardised per example: the student is free in mean and scale.

    ``T^2 KL`` after ``z <- (z - mean) / std`` on both sides, with the unbiased deviation. The
    reference weighs it 9 to 0.1 against the cross-entropy. On two classes standardised logits are
    constants and there is no gradient.

    Args:
        temperature: Softmax temperature of both sides; above 0.

    Source: Sun et al. 2024, CVPR, arXiv 2403.01427;
        sunshangquan/logit-standardization-KD@f6e5aa5172.
    """

    supports_stacked = True
    min_classes = 3

    def __init__(self, *, temperature: float = 2.0) -> None:
        self.temperature = number("temperature", temperature, above=0)

    def __call__(self, student_logits: Tensor, teacher_logits: Tensor, targets: Tensor) -> Tensor:
        """Return the loss ``[B]`` of logits ``[B, C]``; labels are not used."""
        teacher = log_probabilities(_standardise(teacher_logits.detach()), self.temperature)
        student = log_probabilities(_standardise(student_logits), self.temperature)
        return kl_divergence(teacher, student) * self.temperature**2


def _standardise(logits: Tensor) -> Tensor:
    logits = upcast(logits)
    centred = logits - logits.mean(dim=-1, keepdim=True)
    # torch divides by C - 1, as the reference does; NumPy would divide by C.
    return centred / (logits.std(dim=-1, keepdim=True) + _EPSILON)


COMPONENT = LSKD
