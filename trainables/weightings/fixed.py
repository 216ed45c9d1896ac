"""Weights given in the config."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from trainables.losses._check import number
from trainables.protocols import Weighting
from trainables.weightings._guard import uniform


class Fixed(Weighting):
    """The same weights for every example, given in the config.

    Args:
        weights: Weight of each teacher in order, at least 0 and not all 0; scaled to sum 1. None
            is enough for a single teacher.

    Source: the usual practice; nothing to cite.
    """

    def __init__(self, *, weights: Sequence[float] | None = None) -> None:
        self._weights: list[float] | None = None
        if weights is not None:
            values = [number("weights", weight, least=0) for weight in weights]
            if sum(values) <= 0:
                raise ValueError(f"weights must not all be 0, but got {weights=}")
            self._weights = [value / sum(values) for value in values]

    @torch.no_grad()
    def __call__(
        self,
        student_logits: Tensor,
        teacher_logits: Tensor,
        targets: Tensor,
        *,
        features: Tensor | None = None,
    ) -> Tensor:
        """Return the given weights for every example, ``[K, B]``.

        Raises:
            ValueError: There is not exactly one weight per teacher.
        """
        result = uniform(teacher_logits)
        teachers = len(result)
        if teachers == 1:
            return result
        if self._weights is None or len(self._weights) != teachers:
            given = 0 if self._weights is None else len(self._weights)
            raise ValueError(
                f"weights must hold one value per teacher, but got {given} for {teachers} "
                "teachers; give weights=[...] in the order of the teachers"
            )
        return result.new_tensor(self._weights).unsqueeze(1).expand_as(result)


COMPONENT = Fixed
