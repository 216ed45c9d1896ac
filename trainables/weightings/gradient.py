"""AE-KD: teachers combined so that their gradients agree most."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from trainables.losses._check import number, one_of
from trainables.protocols import Weighting
from trainables.weightings._guard import Guard
from trainables.weightings._simplex import capped_minimum


class Gradient(Weighting):
    """Weights of the shortest combined KD gradient, one set per batch (AE-KD).

    ``min_a |sum_k a_k g_k|`` with ``sum a = 1`` and ``0 <= a_k <= cap``, where ``g_k`` is teacher
    k's KD gradient with respect to the student's logits. It is known in closed form,
    ``T (p_s - p_k) / B`` per example, so no backward pass is needed. The shortest gradient
    belongs to the teacher nearest to the student, which need not be the best.

    Args:
        cap: Largest weight of one teacher, above 0 and at most 1; up to ``1 / K`` this is the
            average, 1 is unbounded.
        gram: ``"batchmean"`` averages the gradients over the batch first, as the reference does;
            on balanced batches sampling noise then decides. ``"flat"`` compares them per example.
        temperature: Softmax temperature of the KD gradient; above 0.

    Source: Du et al. 2020, NeurIPS, multi-objective weights; AnTuo1998/AE-KD@68f490e76b;
        closed-form gradient and exact solver are our reading.
    """

    adaptive = True

    def __init__(
        self,
        *,
        cap: float = 0.6,
        gram: Literal["batchmean", "flat"] = "batchmean",
        temperature: float = 4.0,
    ) -> None:
        self.cap = number("cap", cap, above=0)
        if cap > 1:
            raise ValueError(f"cap must be <= 1, but got {cap=}")
        one_of("gram", gram, ("batchmean", "flat"))
        self.gram = gram
        self.temperature = number("temperature", temperature, above=0)
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
        """Return the same weights for every example of the batch, ``[K, B]``."""
        teachers, examples = teacher_logits.shape[:2]
        gradients = self._gradients(student_logits, teacher_logits)
        # On the CPU in double precision: K x K numbers, and autocast leaves doubles alone.
        matrix = (gradients @ gradients.T).cpu()
        usable = bool(torch.isfinite(matrix).all())
        weights = torch.full((teachers,), torch.nan, dtype=torch.float64)
        if usable:
            weights = torch.from_numpy(capped_minimum(matrix.numpy(), self.cap))
        dtype = torch.promote_types(teacher_logits.dtype, torch.float32)
        weights = weights.to(teacher_logits.device, dtype)
        return self._guard(weights.unsqueeze(1).expand(teachers, examples))

    def _gradients(self, student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
        """Return the gradients ``[K, C]`` or ``[K, B * C]`` up to a common factor."""
        teachers = torch.softmax(teacher_logits.double() / self.temperature, dim=-1)
        student = torch.softmax(student_logits.double() / self.temperature, dim=-1)
        if self.gram == "batchmean":
            return student.mean(dim=0) - teachers.mean(dim=1)
        return (student - teachers).flatten(1)


COMPONENT = Gradient
