"""How far a student is from each stage of its teachers' way, measured on dev.

Legend: A anchors, K teachers, N dev rows, C classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from trainables.losses._math import kl_divergence, log_probabilities
from trainables.outputs import load_outputs, positions
from trainables.store import Store


class Route:
    """Dev outputs of the teachers at every anchor.

    Args:
        store: Holds the outputs.
        teachers: Name and outputs keys of each teacher; ``outputs[anchor]["dev"]``.
        ids: Ids of the dev rows ``[N]``, in the order in which the student answers them.

    Raises:
        DataError: Outputs do not cover the dev rows.
    """

    def __init__(
        self,
        store: Store,
        teachers: Sequence[tuple[str, Sequence[Mapping[str, str]]]],
        ids: Tensor,
    ) -> None:
        self._anchors = [
            torch.stack([_dev_logits(store, name, anchors[a], ids) for name, anchors in teachers])
            for a in range(len(teachers[0][1]))
        ]  # A of [K, N, C]

    def divergences(self, student_logits: Tensor) -> list[float]:
        """Return the mean KL of the student ``[N, C]`` to the teachers at each anchor, in nats."""
        student = log_probabilities(student_logits)
        return [
            float(kl_divergence(log_probabilities(teachers), student).mean())
            for teachers in self._anchors
        ]


def _dev_logits(store: Store, name: str, splits: Mapping[str, str], ids: Tensor) -> Tensor:
    outputs = load_outputs(store, splits["dev"])
    return outputs.logits[positions(ids, outputs.ids, f"teacher {name!r}")]
