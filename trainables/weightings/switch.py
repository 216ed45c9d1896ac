"""One teacher per batch, drawn at random."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from trainables.protocols import Weighting
from trainables.weightings._guard import one_hot


class Switch(Weighting):
    """Each batch learns from one teacher, drawn uniformly: ``average`` with more noise.

    Args:
        seed: Seed of the draws until the trainer sets the trial's.

    Source: Fukuda et al. 2017, Interspeech, first strategy (our reading).
    """

    adaptive = True

    def __init__(self, *, seed: int = 0) -> None:
        if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
            raise ValueError(f"seed must be a whole number >= 0, but got {seed=}")
        # Its own stream: drawing a teacher must not change dropout or the order of the examples.
        self._generator = torch.Generator().manual_seed(seed)

    def configure(self, *, scores: Sequence[float], generator_seed: int) -> None:
        """Start the stream of this trial."""
        self._generator.manual_seed(generator_seed)

    @torch.no_grad()
    def __call__(
        self,
        student_logits: Tensor,
        teacher_logits: Tensor,
        targets: Tensor,
        *,
        features: Tensor | None = None,
    ) -> Tensor:
        """Return one for the drawn teacher and zero for the others, ``[K, B]``."""
        drawn = torch.randint(len(teacher_logits), (), generator=self._generator)
        return one_hot(teacher_logits, int(drawn))

    def state_dict(self) -> dict[str, Any]:
        """Return the position in the random stream."""
        return {"generator": self._generator.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue the random stream where the checkpoint left it."""
        self._generator.set_state(state["generator"])


COMPONENT = Switch
