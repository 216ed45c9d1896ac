"""Equal weights on the losses."""

from __future__ import annotations

import torch
from torch import Tensor

from trainables.protocols import Weighting
from trainables.weightings._guard import uniform


class Average(Weighting):
    """Equal weight for every teacher: the mean of the losses.

    Source: You et al. 2017, KDD, in the form that averages losses; see also average_prob.
    """

    @torch.no_grad()
    def __call__(
        self,
        student_logits: Tensor,
        teacher_logits: Tensor,
        targets: Tensor,
        *,
        features: Tensor | None = None,
    ) -> Tensor:
        """Return ``1 / K`` everywhere, ``[K, B]``."""
        return uniform(teacher_logits)


COMPONENT = Average
