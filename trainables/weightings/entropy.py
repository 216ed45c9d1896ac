"""EBKD: teachers count by how sure they are."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from trainables.losses._check import number, one_of
from trainables.losses._math import upcast
from trainables.protocols import Weighting
from trainables.weightings._guard import Guard


class Entropy(Weighting):
    """Teachers of lower entropy count more, per example; needs no labels (EBKD).

    The entropy ratio has no scale: of two saturated teachers the one with 1e-6 instead of 1e-4
    gets all the weight. ``epsilon`` or a higher ``temperature`` tames that. A teacher that is
    confidently wrong is rewarded.

    Args:
        form: ``"one_minus_ratio"``: ``1 - H_k / sum_j H_j``; ``"softmax_neg"``: ``softmax(-H)``;
            ``"inverse"``: proportional to ``1 / H``.
        temperature: Softmax temperature at which the entropies are taken; above 0.
        epsilon: Added to every entropy, in nats; at least 0.
        normalize: ``"sum1"``, or ``"official"`` for the mass ``(K - 1) / K`` that the reference
            code gives to the first form; the other forms have no reference and stay at sum 1.

    Source: Kwon et al. 2020, ICASSP, as in Rorozhl/CA-MKD@c2f39a9f13; other forms our reading.
    """

    def __init__(
        self,
        *,
        form: Literal["one_minus_ratio", "softmax_neg", "inverse"] = "one_minus_ratio",
        temperature: float = 1.0,
        epsilon: float = 0.0,
        normalize: Literal["sum1", "official"] = "sum1",
    ) -> None:
        one_of("form", form, ("one_minus_ratio", "softmax_neg", "inverse"))
        one_of("normalize", normalize, ("sum1", "official"))
        self.form = form
        self.temperature = number("temperature", temperature, above=0)
        self.epsilon = number("epsilon", epsilon, least=0)
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
        """Return weights ``[K, B]`` from teachers ``[K, B, C]``."""
        probabilities = torch.softmax(upcast(teacher_logits) / self.temperature, dim=-1)
        # entr, not p * log p: a saturated teacher has probabilities that are exactly zero.
        entropy = torch.special.entr(probabilities).sum(dim=-1) + self.epsilon
        teachers = len(entropy)
        if teachers == 1:
            return torch.ones_like(entropy)
        weights = self._guard(self._weights(entropy))
        if self.normalize == "official" and self.form == "one_minus_ratio":
            return weights * (teachers - 1) / teachers
        return weights

    def _weights(self, entropy: Tensor) -> Tensor:
        if self.form == "softmax_neg":
            return torch.softmax(-entropy, dim=0)
        if self.form == "inverse":
            inverse = 1.0 / entropy
            return inverse / inverse.sum(dim=0)
        return (1.0 - entropy / entropy.sum(dim=0)) / (len(entropy) - 1)


COMPONENT = Entropy
