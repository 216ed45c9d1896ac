"""Merging of the teachers by their mean probabilities."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from trainables.losses._math import log_probabilities
from trainables.protocols import Weighting
from trainables.weightings._guard import uniform


class AverageProb(Weighting):
    """One teacher out of many: the mean of the softened probabilities.

    With plain KD the student's gradient is that of ``average``, the value is smaller by a
    constant, and one divergence is computed instead of ``K``.

    Source: You et al. 2017, KDD, averaged softened outputs; AnTuo1998/AE-KD@68f490e76b.
    """

    merges = True

    def merge(self, teacher_logits: Tensor, temperature: float) -> Tensor:
        """Return logits ``z`` ``[1, B, C]`` with ``softmax(z / T) = mean_k softmax(z_k / T)``."""
        log_p = log_probabilities(teacher_logits.detach(), temperature)
        mean = torch.logsumexp(log_p, dim=0, keepdim=True) - math.log(len(log_p))
        return mean * temperature

    @torch.no_grad()
    def __call__(
        self,
        student_logits: Tensor,
        teacher_logits: Tensor,
        targets: Tensor,
        *,
        features: Tensor | None = None,
    ) -> Tensor:
        """Return ``1 / K`` everywhere, ``[K, B]``; the loss sees the merged teacher alone."""
        return uniform(teacher_logits)


COMPONENT = AverageProb
