"""CA-MKD: teachers count by how well they know the label."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from trainables.losses._check import one_of
from trainables.protocols import Weighting
from trainables.weightings._guard import Guard, inverse_confidence, teacher_cross_entropy


class Confidence(Weighting):
    """Teachers closer to the label count more, per example (CA-MKD).

    ``w_k = (1 - softmax_k(CE_k)) / (K - 1)`` with the teachers' cross-entropies at temperature 1.
    No teacher gets more than ``1 / (K - 1)``, so with many teachers this approaches the average.

    Args:
        normalize: ``"sum1"``, or ``"official"`` for the further ``1 / K`` of the reference code.

    Source: Zhang, Chen, Wang 2022, arXiv 2201.00007, output weights; Rorozhl/CA-MKD@c2f39a9f13.
    """

    needs_labels = True

    def __init__(self, *, normalize: Literal["sum1", "official"] = "sum1") -> None:
        one_of("normalize", normalize, ("sum1", "official"))
        self.normalize = normalize
        self._guard = Guard()

    @property
    def fallbacks(self) -> int:
        """How many examples so far got equal weights because theirs were not finite."""
        return self._guard.count

    @torch.no_grad()
    def __call__(
        self,
        student_logits: Tensor,
        teacher_logits: Tensor,
        targets: Tensor,
        *,
        features: Tensor | None = None,
    ) -> Tensor:
        """Return weights ``[K, B]`` from teachers ``[K, B, C]`` and labels ``[B]``."""
        weights = self._guard(inverse_confidence(teacher_cross_entropy(teacher_logits, targets)))
        return weights / len(weights) if self.normalize == "official" else weights


COMPONENT = Confidence
