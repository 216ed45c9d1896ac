"""Shared pieces of the weightings: the uniform fallback and per-teacher cross-entropy.

Letters: ``K`` teachers, ``B`` examples, ``C`` classes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from trainables.losses._math import log_probabilities, upcast


class Guard:
    """Replaces unusable weights by equal ones and counts how often.

    The count stays on the device: asking for it in every step would make a GPU wait.
    """

    def __init__(self) -> None:
        self._broken: Tensor | None = None

    def __call__(self, weights: Tensor) -> Tensor:
        """Return ``weights [K, B]`` with equal weights where a column is not finite and >= 0."""
        usable = (torch.isfinite(weights) & (weights >= 0)).all(dim=0)
        broken = (~usable).sum()
        self._broken = broken if self._broken is None else self._broken + broken
        return torch.where(usable, weights, 1.0 / weights.shape[0])

    @property
    def count(self) -> int:
        """How many examples got equal weights so far."""
        return 0 if self._broken is None else int(self._broken)


def uniform(teacher_logits: Tensor) -> Tensor:
    """Return equal weights ``[K, B]`` for teachers ``[K, B, C]``."""
    teachers, examples = teacher_logits.shape[:2]
    like = upcast(teacher_logits.detach())
    return torch.full((teachers, examples), 1.0 / teachers, dtype=like.dtype, device=like.device)


def one_hot(teacher_logits: Tensor, index: int) -> Tensor:
    """Return weights ``[K, B]`` that are one for teacher ``index`` and zero for the others."""
    weights = uniform(teacher_logits).zero_()
    weights[index] = 1.0
    return weights


def teacher_cross_entropy(teacher_logits: Tensor, targets: Tensor) -> Tensor:
    """Return the cross-entropy ``[K, B]`` of teachers ``[K, B, C]`` with the labels ``[B]``."""
    log_p = log_probabilities(teacher_logits)
    index = targets.expand(log_p.shape[0], -1).unsqueeze(-1)
    return -log_p.gather(-1, index).squeeze(-1)


def inverse_confidence(cross_entropy: Tensor) -> Tensor:
    """Return ``(1 - softmax_k CE) / (K - 1)`` ``[K, B]`` of cross-entropies ``[K, B]``.

    Not the same as ``softmax_k(-CE)`` except for two teachers. One teacher gets weight one, where
    the formula says 0 / 0.
    """
    teachers = cross_entropy.shape[0]
    if teachers == 1:
        return torch.ones_like(cross_entropy)
    # A softmax may exceed one by a rounding error.
    return (1.0 - torch.softmax(cross_entropy, dim=0)).clamp(min=0) / (teachers - 1)
