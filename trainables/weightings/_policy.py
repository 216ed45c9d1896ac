"""The selector of ``reinforced``: a logistic policy trained by REINFORCE.

Letters: ``B`` examples, ``C`` classes, ``K`` teachers, ``D`` features, ``S`` width of a state.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainables.losses._math import upcast
from trainables.weightings._guard import teacher_cross_entropy

# Keeps log pi and log(1 - pi) finite, and every teacher reachable.
_LEAST, _MOST = 1e-4, 1.0 - 1e-4


class Policy(nn.Module):
    """One linear layer on the normalised state: the probability of selecting each teacher.

    All decisions see all teachers. The layer starts at zero, so every probability starts at one
    half, and no random number is drawn that the student would miss.

    Args:
        width: ``S``.
        teachers: ``K``.
    """

    def __init__(self, width: int, teachers: int) -> None:
        super().__init__()
        self.normalise = nn.LayerNorm(width)
        self.weight = nn.Parameter(torch.zeros(teachers, width))
        self.bias = nn.Parameter(torch.zeros(teachers))

    def forward(self, state: Tensor) -> Tensor:
        """Return selection probabilities ``[B, K]`` of states ``[B, S]``."""
        logits = F.linear(self.normalise(state), self.weight, self.bias)
        return torch.sigmoid(logits).clamp(_LEAST, _MOST)


def observe(teacher_logits: Tensor, targets: Tensor, features: Tensor | None) -> Tensor:
    """Return the state ``[B, S]`` in float32: text, and what each teacher says and how wrong it is.

    Args:
        teacher_logits: ``[K, B, C]``.
        targets: Labels ``[B]``.
        features: Sentence embeddings ``[B, D]``, or None to decide from the teachers alone.
    """
    probabilities = torch.softmax(upcast(teacher_logits), dim=-1)  # [K, B, C]
    loss = teacher_cross_entropy(teacher_logits, targets)  # [K, B]
    parts = [probabilities.transpose(0, 1).flatten(1), loss.T]
    if features is not None:
        parts.insert(0, features)
    return torch.cat([part.detach().float() for part in parts], dim=1)


def log_probability(probabilities: Tensor, actions: Tensor) -> Tensor:
    """Return the log-probability ``[B]`` of 0/1 actions ``[B, K]``, over all teachers."""
    chosen = actions * probabilities.log() + (1.0 - actions) * torch.log1p(-probabilities)
    return chosen.sum(dim=1)


def bernoulli_entropy(probabilities: Tensor) -> Tensor:
    """Return the entropy ``[B]`` in nats of the ``K`` decisions together."""
    pair = torch.stack([probabilities, 1.0 - probabilities])
    entropy: Tensor = torch.special.entr(pair)
    return entropy.sum(dim=(0, 2))


def policy_loss(
    probabilities: Tensor, actions: Tensor, advantages: Tensor, entropy_bonus: float
) -> Tensor:
    """Return the scalar whose gradient is the REINFORCE estimate with the sign for descent.

    The logarithm matters: with ``sum pi`` in place of ``sum log pi`` the estimate is biased.

    Args:
        probabilities: ``[B, K]``, with gradient.
        actions: 0/1 ``[B, K]``, as sampled; not what replaced an empty selection.
        advantages: Reward minus baseline ``[B]``.
        entropy_bonus: Coefficient of the policy's entropy.
    """
    gain = (advantages.detach() * log_probability(probabilities, actions)).mean()
    return -gain - entropy_bonus * bernoulli_entropy(probabilities).mean()


class Baseline:
    """Moving average of the reward: what to expect whatever is selected.

    Args:
        momentum: Share of the old value that is kept.
    """

    def __init__(self, momentum: float) -> None:
        self.momentum = momentum
        self.value: Tensor | None = None

    def advantages(self, rewards: Tensor) -> Tensor:
        """Return the standardised rewards ``[B]``, then take them into the average."""
        mean = rewards.mean()
        # The value of before this batch: one that contained it would bias the estimate.
        baseline = mean if self.value is None else self.value.to(mean)
        spread = rewards.std(correction=0)
        self.value = self.momentum * baseline + (1.0 - self.momentum) * mean
        return (rewards - baseline) / (spread + 1e-6)


class Tally:
    """Sums of an epoch's decisions; stays on the device until it is asked."""

    def __init__(self) -> None:
        self.examples = 0
        self._selected: Tensor | float = 0.0
        self._empty: Tensor | float = 0.0
        self._entropy: Tensor | float = 0.0

    def add(self, actions: Tensor, probabilities: Tensor) -> None:
        """Count the actions ``[B, K]`` sampled with ``probabilities [B, K]``."""
        self.examples += len(actions)
        self._selected = self._selected + actions.sum(dim=0)
        self._empty = self._empty + (actions.sum(dim=1) == 0).sum()
        self._entropy = self._entropy + bernoulli_entropy(probabilities).sum()

    def means(self) -> Iterator[tuple[str, float]]:
        """Yield selection rate of each teacher, rate of empty selections, policy entropy."""
        if self.examples == 0 or not isinstance(self._selected, Tensor):
            return
        for teacher, rate in enumerate((self._selected / self.examples).tolist()):
            yield f"selection_rate_{teacher}", rate
        yield "empty_selection_rate", float(self._empty) / self.examples
        yield "policy_entropy", float(self._entropy) / self.examples
