"""Which of many past trials a sampler is shown.

TPE reads all trials it is given for each suggestion. What it makes of them is a comparison of the
best few with the rest: never more than 25 trials count as good, and the weight of the others falls
linearly with their age. So the best and the latest say nearly all there is to say, and with a
bounded number of them the ten-thousandth suggestion costs what the three-hundredth did.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

# Twice what TPE regards as good at most, so that its choice among them stays its own.
BEST = 50
SHOWN = 300
# The window is narrowed when it is this full: rarely enough to cost nothing per trial.
FULL = 400

Losses = tuple[float, ...]


def to_show(losses: Sequence[Losses | None], best: int = BEST, shown: int = SHOWN) -> list[int]:
    """Return the indices of the trials to show, in their order.

    Args:
        losses: Oldest first; for each trial its objectives with the sign turned so that less is
            better, or None if it has no value.
        best: How many of the best to keep, however old.
        shown: How many to keep in all; the rest are the latest.
    """
    if len(losses) <= shown:
        return list(range(len(losses)))
    valued = [index for index, loss in enumerate(losses) if loss is not None]
    values = np.array([losses[index] for index in valued], dtype=float)
    kept = {valued[row] for row in best_rows(values, best)} if valued else set()
    for index in reversed(range(len(losses))):
        if len(kept) >= shown:
            break
        kept.add(index)
    return sorted(kept)


def best_rows(losses: np.ndarray, count: int) -> list[int]:
    """Return the rows of the ``count`` best of ``losses`` [N, objectives], less being better.

    With several objectives, front after front of those that no other row beats in all of them.
    """
    if losses.shape[1] == 1:
        return [int(row) for row in np.argsort(losses[:, 0], kind="stable")[:count]]
    left = np.arange(len(losses))
    chosen: list[int] = []
    while len(left) and len(chosen) < count:
        rows = losses[left]  # [M, objectives]
        no_worse = (rows[:, None] <= rows[None]).all(axis=2)  # [M, M]: row i against column j
        better = (rows[:, None] < rows[None]).any(axis=2)
        front = ~(no_worse & better).any(axis=0)
        chosen.extend(int(row) for row in left[front])
        left = left[~front]
    return chosen[:count]
