"""Distillation from the single worst teacher."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from trainables.protocols import Weighting
from trainables.weightings._guard import one_hot
from trainables.weightings._ranked import Ranking


class WorstTeacher(Weighting):
    """The teacher with the worst dev score alone: what a bad choice of teacher costs.

    Args:
        scores: Dev score of each teacher in order, higher is better; None takes those that the
            trainer measured.

    Source: row KD2 of Du, Lv, Sun, CSA 13(8) 2023, doi 10.12677/csa.2023.138150 (our reading).
    """

    def __init__(self, *, scores: Sequence[float] | None = None) -> None:
        self._ranking = Ranking(scores)

    def configure(self, *, scores: Sequence[float], generator_seed: int) -> None:
        """Take the teachers' dev scores, unless the config gave them."""
        self._ranking.fill(scores)

    @torch.no_grad()
    def __call__(
        self,
        student_logits: Tensor,
        teacher_logits: Tensor,
        targets: Tensor,
        *,
        features: Tensor | None = None,
    ) -> Tensor:
        """Return one for the worst teacher and zero for the others, ``[K, B]``.

        Raises:
            ValueError: There are several teachers and no scores, or too many or few.
        """
        return one_hot(teacher_logits, self._ranking.worst(teacher_logits.shape[0]))


COMPONENT = WorstTeacher
