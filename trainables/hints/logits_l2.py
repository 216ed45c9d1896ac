"""Squared distance of raw logits, as a hint."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import Tensor

from trainables.hints._projection import weighted_distance
from trainables.losses._check import one_of
from trainables.losses._math import upcast
from trainables.protocols import Hint


class LogitsL2(Hint):
    """Squared distance of raw logits, weighted like the teachers' outputs.

    For teachers whose features cannot be compared with the student's. A constant added to a row
    changes the value: the student learns the teachers' offset too.

    Args:
        feat_reduction: ``"sum"`` over the classes, as printed, or ``"mean"``.

    Source: eq. (11) of Du, Lv, Sun, CSA 13(8) 2023, doi 10.12677/csa.2023.138150 (our reading).
    """

    level = "logits"

    def __init__(self, *, feat_reduction: Literal["mean", "sum"] = "sum") -> None:
        super().__init__()
        one_of("feat_reduction", feat_reduction, ("mean", "sum"))
        self.feat_reduction = feat_reduction

    def forward(
        self, student: Tensor, teachers: Sequence[Tensor], weights: Tensor, targets: Tensor
    ) -> Tensor:
        """Return ``[B]`` for student ``[B, C]`` and ``K`` teachers ``[B, C]``.

        Raises:
            ValueError: A teacher knows another number of classes.
        """
        for teacher in teachers:
            if teacher.shape != student.shape:
                raise ValueError(
                    f"logits_l2 compares logits of the same classes, but the student has "
                    f"{student.shape[-1]} and a teacher {teacher.shape[-1]}"
                )
        students = [upcast(student)] * len(teachers)
        return weighted_distance(self._distance, students, teachers, weights)

    def _distance(self, student: Tensor, teacher: Tensor) -> Tensor:
        each = (student - teacher).square()
        return each.sum(dim=-1) if self.feat_reduction == "sum" else each.mean(dim=-1)


COMPONENT = LogitsL2
