"""How good a way of teaching is, told from cached outputs before any student is trained.

Legend: N examples, C classes, K teachers.
"""

from __future__ import annotations

import torch
from torch import Tensor

from trainables.losses._math import log_probabilities, upcast
from trainables.protocols import UNLABELLED, Weighting, trait


def can_screen(weighting: object) -> bool:
    """Tell whether a weighting's choice is known without a student and without labels.

    One that reads labels would look better on dev than it teaches, and one that follows the
    student, or chance, has no weights yet.
    """
    return not any(
        trait(weighting, Weighting, name) for name in ("needs_labels", "needs_feedback", "adaptive")
    )


@torch.no_grad()
def teaching_log_loss(
    weighting: Weighting, teachers: Tensor, targets: Tensor, temperature: float
) -> float:
    """Return the mean log loss, in nats, of what the teachers together say about labelled rows.

    A student can at best become as good as the probabilities it is taught, so the proper score of
    those is a forecast: a teacher may be accurate and still teach badly, by being sure of its
    errors.

    Args:
        weighting: One that :func:`can_screen`.
        teachers: Logits ``[K, N, C]``.
        targets: True classes ``[N]``.
        temperature: Softens the teachers, as the loss does.

    Source: after Menon et al. 2021, ICML, "A statistical perspective on distillation"; its use to
        choose among teachers, weightings and temperatures is our reading.
    """
    teachers = upcast(teachers)
    unlabelled = torch.full_like(targets, UNLABELLED)
    weights = weighting(torch.zeros_like(teachers[0]), teachers, unlabelled)  # [K, N]
    if trait(weighting, Weighting, "merges"):
        teachers = weighting.merge(teachers, temperature)
        weights = weights.sum(dim=0, keepdim=True)
    picked = targets.expand(len(teachers), -1).unsqueeze(-1)
    chosen = log_probabilities(teachers / temperature).gather(-1, picked).squeeze(-1)  # [K, N]
    together = torch.logsumexp(chosen + weights.log(), dim=0) - weights.sum(dim=0).log()
    return float(-together.mean())
