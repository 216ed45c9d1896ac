"""Merging of the teachers by their mean logits."""

from __future__ import annotations

import torch
from torch import Tensor

from trainables.losses._math import upcast
from trainables.protocols import Weighting
from trainables.weightings._guard import uniform


class AverageLogit(Weighting):
    """One teacher out of many: the mean of the logits.

    A geometric mean of the probabilities: a class that one teacher rules out stays ruled out. Its
    gradient differs from that of ``average`` and ``average_prob``.

    Source: the multi-teacher distiller of airaria/TextBrewer@2c105fa664.
    """

    merges = True

    def merge(self, teacher_logits: Tensor, temperature: float) -> Tensor:
        """Return the mean logits ``[1, B, C]``; the temperature plays no part."""
        return upcast(teacher_logits.detach()).mean(dim=0, keepdim=True)

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


COMPONENT = AverageLogit
