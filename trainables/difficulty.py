"""Which teachers a learned selection prefers on rows that are easy or hard for them.

Legend: N rows, K teachers, C classes, D features, L levels of difficulty.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from trainables.encoded import Encoded
from trainables.evaluation import Predictor
from trainables.guidance import Guidance
from trainables.objective import Objective
from trainables.protocols import UNLABELLED
from trainables.trained import Remarks
from trainables.weightings._guard import teacher_cross_entropy

LEVELS = ("easy", "medium", "hard")

# Means over this many rows are known to a third of a per cent; asking a million would only cost.
MOST_ROWS = 20_000


def difficulty(teacher_logits: Tensor, targets: Tensor) -> Tensor:
    """Return how hard each row is ``[N]``: the teachers' mean cross-entropy with its label, nats.

    Not the number of teachers that are right: on training rows nearly always all of them are.

    Args:
        teacher_logits: ``[K, N, C]``.
        targets: Labels ``[N]``.
    """
    return teacher_cross_entropy(teacher_logits, targets).mean(dim=0)


def terciles(values: Tensor) -> Tensor:
    """Return the third ``[N]`` int64 that each value ``[N]`` belongs to, 0 for the smallest.

    By rank, so that the thirds are of one size; among equal values the earlier row comes first.
    """
    ranks = torch.empty(len(values), dtype=torch.int64)
    ranks[values.argsort(stable=True)] = torch.arange(len(values))
    return ranks * len(LEVELS) // max(1, len(values))


def by_level(probabilities: Tensor, values: Tensor, names: Sequence[str]) -> dict[str, Any]:
    """Return mean selection probabilities by level of difficulty, as JSON values.

    Args:
        probabilities: Of selecting each teacher for each row, ``[K, N]``.
        values: Difficulty of each row ``[N]``, at least ``L`` of them.
        names: Of the K teachers.

    Returns:
        By level: ``rows``, ``difficulty`` (mean, nats) and ``teachers`` (probability by name).
    """
    level = terciles(values)
    found = {}
    for number, name in enumerate(LEVELS):
        inside = level == number
        means = probabilities[:, inside].double().mean(dim=1).tolist()
        found[name] = {
            "rows": int(inside.sum()),
            "difficulty": float(values[inside].double().mean()),
            "teachers": dict(zip(names, means, strict=True)),
        }
    return found


def selection_by_difficulty(
    objective: Objective,
    model: nn.Module,
    rows: Encoded,
    guidance: Guidance,
    names: Sequence[str],
    device: torch.device,
) -> Remarks | None:
    """Ask a trained policy about the labelled rows; None if it has learned nothing.

    The metrics are ``selection_LEVEL_K``: the mean probability with which teacher number K is
    selected on the easy, medium and hard third of the training rows.

    Args:
        objective: Holds the weighting, as the last epoch left it.
        model: The trained student, whose features the policy looks at.
        rows: What the student was trained on.
        guidance: What the teachers say about them.
        names: Of the teachers, in their order.
        device: Where the model is.
    """
    index = _evenly((rows.labels != UNLABELLED).nonzero().squeeze(1), MOST_ROWS)
    if len(index) < len(LEVELS):
        return None
    logits, features = Predictor(rows.subset(index), device=device)(model, features=True)
    teachers, targets = guidance.logits(index), rows.labels[index]
    moved = [part.to(device) for part in (logits, teachers, targets)]
    found = objective.selection(*moved, features=None if features is None else features.to(device))
    if found is None:
        return None
    probabilities, targets = (part.cpu() for part in found)
    levels = by_level(probabilities, difficulty(teachers, targets), names)
    metrics = {
        f"selection_{level}_{number}": share
        for level, entry in levels.items()
        for number, share in enumerate(entry["teachers"].values())
    }
    return Remarks(metrics, {"selection": levels})


def _evenly(index: Tensor, most: int) -> Tensor:
    """Return at most ``most`` of the row numbers ``[N]``, evenly spaced."""
    return index if len(index) <= most else index[torch.arange(most) * len(index) // most]
