"""The power transform of teacher probabilities, shared by ttm and wttm."""

from __future__ import annotations

import torch
from torch import Tensor

from trainables.losses._math import log_probabilities


def power_transform(teacher_logits: Tensor, gamma: float) -> tuple[Tensor, Tensor]:
    """Raise the teacher's probabilities to ``gamma`` and normalise again.

    Args:
        teacher_logits: ``[B, C]``.
        gamma: The exponent, above 0.

    Returns:
        Log-probabilities ``[B, C]`` of ``p^gamma / U`` and ``log U`` ``[B]``,
        ``U = sum_c p^gamma``.
    """
    powered = gamma * log_probabilities(teacher_logits)
    log_mass = torch.logsumexp(powered, dim=-1)
    return powered - log_mass.unsqueeze(-1), log_mass
