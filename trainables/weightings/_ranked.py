"""One teacher for all examples, chosen by its dev score."""

from __future__ import annotations

import math
from collections.abc import Sequence


class Ranking:
    """Dev scores of the teachers, given in the config or filled in by the trainer.

    Args:
        scores: Dev score of each teacher in order, or None to wait for the trainer's.

    Raises:
        ValueError: A score is not a finite number.
    """

    def __init__(self, scores: Sequence[float] | None) -> None:
        self._given = scores is not None
        self._scores = self._checked(scores) if scores is not None else None

    def fill(self, scores: Sequence[float]) -> None:
        """Take the trainer's scores; those of the config have precedence."""
        if not self._given:
            self._scores = self._checked(scores)

    def best(self, teachers: int) -> int:
        """Return the index of the highest score, the first of several."""
        scores = self._of(teachers)
        return scores.index(max(scores))

    def worst(self, teachers: int) -> int:
        """Return the index of the lowest score, the first of several."""
        scores = self._of(teachers)
        return scores.index(min(scores))

    def _of(self, teachers: int) -> list[float]:
        if teachers == 1:
            return [0.0]
        if self._scores is None:
            raise ValueError(
                f"choosing one of {teachers} teachers needs their dev scores; "
                "give scores=[...] in the order of the teachers"
            )
        if len(self._scores) != teachers:
            raise ValueError(
                f"scores must hold one value per teacher, but got {len(self._scores)} "
                f"for {teachers} teachers"
            )
        return self._scores

    @staticmethod
    def _checked(scores: Sequence[float]) -> list[float]:
        values = [float(score) for score in scores]
        if not values or not all(math.isfinite(value) for value in values):
            raise ValueError(f"scores must be finite numbers, at least one, but got {scores=}")
        return values
