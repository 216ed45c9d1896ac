"""Folds of the training rows, for outputs of teachers that have not seen the row they judge.

Teachers fit their training rows almost perfectly, so what they say about those rows is the label
once more: all teachers agree, every weighting becomes uniform. A teacher trained on the other
folds speaks about a row as it would about a new one.

Legend: N rows, F folds.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def fold_of(ids: Tensor, folds: int, blocks: Tensor | None = None) -> Tensor:
    """Return the fold 0..F-1 of each row ``[N]`` int64, by a hash of its id alone.

    A row stays in its fold whatever rows stand beside it and in whatever order. Where groups of
    rows stay together, their numbers decide: a teacher that has seen the other reviews of a hotel
    has seen too much.

    Args:
        ids: Example ids ``[N]`` int64.
        folds: F, at least 2.
        blocks: The number of each row's group ``[N]`` int64, or None.

    Source: the finaliser of SplitMix64 (Steele, Lea, Flood 2014, OOPSLA).
    """
    if folds < 2:
        raise ValueError(f"folds must be at least 2, but got {folds}")
    if blocks is not None:
        return blocks % folds
    bits = ids.numpy().astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    bits ^= bits >> np.uint64(31)
    return torch.from_numpy((bits % np.uint64(folds)).astype(np.int64))


def inside(ids: Tensor, fold: int, folds: int, blocks: Tensor | None = None) -> Tensor:
    """Return the positions of the rows in one fold, ascending, int64."""
    return (fold_of(ids, folds, blocks) == fold).nonzero().squeeze(1)


def outside(ids: Tensor, fold: int, folds: int, blocks: Tensor | None = None) -> Tensor:
    """Return the positions of the rows in all other folds, ascending, int64."""
    return (fold_of(ids, folds, blocks) != fold).nonzero().squeeze(1)
