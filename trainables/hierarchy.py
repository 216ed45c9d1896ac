"""Superclasses: teachers that know coarser classes than the student learns.

Legend: N rows, C classes, S superclasses; ``groups[c]`` is the superclass of class ``c``.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from trainables.encoded import Encoded
from trainables.errors import DataError
from trainables.seeding import derive_seed

_DRAWS = 100


def coarse(labels: Tensor, groups: Sequence[int]) -> Tensor:
    """Return the superclass ``[N]`` of each class ``[N]``; rows without a label stay without."""
    table = torch.tensor(groups, dtype=torch.int64)
    return torch.where(labels >= 0, table[labels.clamp(min=0)], labels)


def coarsened(encoded: Encoded, groups: Sequence[int] | None) -> Encoded:
    """Return a split with superclass labels; the tokens are shared. Without groups, itself."""
    return encoded if groups is None else replace(encoded, labels=coarse(encoded.labels, groups))


def superclass_counts(counts: Sequence[int], groups: Sequence[int]) -> list[int]:
    """Return rows by superclass ``[S]`` from rows by class ``[C]``."""
    totals = [0] * (max(groups) + 1)
    for number, group in zip(counts, groups, strict=True):
        totals[group] += number
    return totals


def shuffled_groups(groups: Sequence[int], seed: int) -> tuple[int, ...]:
    """Return another hierarchy with superclasses of the same sizes: the control for its meaning.

    If a student gains as much from teachers of a meaningless hierarchy, then the concept is not
    what helps it.

    Raises:
        DataError: Every hierarchy with these sizes is the same one.
    """
    stream = random.Random(derive_seed(seed, "hierarchy"))
    shuffled = list(groups)
    for _ in range(_DRAWS):
        stream.shuffle(shuffled)
        if _partition(shuffled) != _partition(groups):
            return tuple(shuffled)
    raise DataError(
        f"the hierarchy of {len(groups)} classes in {max(groups) + 1} superclasses cannot be "
        "shuffled into another one; remove the teachers with labels: shuffled"
    )


def _partition(groups: Sequence[int]) -> frozenset[frozenset[int]]:
    members: dict[int, set[int]] = {}
    for number, group in enumerate(groups):
        members.setdefault(group, set()).add(number)
    return frozenset(frozenset(group) for group in members.values())
