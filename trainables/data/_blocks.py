"""Splits of whole groups: all reviews of one hotel, all documents of one author.

Rows of one group resemble each other in more than their label. If some of them are trained on and
others tested, a model is praised for knowing the hotel.

A group is called block here, because a ``group`` of classes is a superclass. Legend: N rows, B
blocks, C classes.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from trainables.data import _rows
from trainables.data._rows import Bools, Ints

# Blocks that are looked at for one split, over all draws: a second, whatever the data.
_EFFORT = 100_000
_MOST_DRAWS = 64


def choose(
    labels: Ints, blocks: Ints, count: int, n_classes: int, *, spare: int, seed: int, purpose: str
) -> Bools:
    """Choose whole blocks with about ``count`` rows and the class shares of all rows, ``[N]``.

    Of several draws, each of which takes a block if that brings the classes nearer to what is
    wanted, the best: with all classes on both sides if there is one, then the nearest.

    Args:
        labels: Class of each row, ``[N]``.
        blocks: Block of each row, ``[N]``.
        count: How many rows are wanted.
        n_classes: C.
        spare: Blocks that must be left over; B is greater than that.
        seed: Which draws are made.
        purpose: Tells draws for different splits apart.
    """
    names, position = np.unique(blocks, return_inverse=True)  # [B], [N]
    sizes = np.zeros((len(names), n_classes))
    np.add.at(sizes, (position, labels), 1)  # [B, C]
    total = sizes.sum(0)
    wanted = total * (count / len(labels))
    draws = min(_MOST_DRAWS, max(1, _EFFORT // len(names)))
    best, best_score = np.zeros(len(names), bool), (np.inf, np.inf)
    for draw in range(draws):
        order = _rows.shuffled(names, seed, f"{purpose}/{draw}")
        taken = _take(sizes, order, wanted, len(names) - spare)
        have = sizes[taken].sum(0)
        missing = ((have == 0) | (have == total)) & (total > 0)
        score = (float(missing.sum()), float(np.square(wanted - have).sum()))
        if score < best_score:
            best, best_score = taken, score
    chosen: Bools = best[position]
    return chosen


def numbered(blocks: Ints) -> Ints:
    """Return the number of each row's block ``[N]``, 0 for the biggest; ties by their hash.

    Dealt out in turn, blocks of falling size make folds of nearly one size.
    """
    _, position, sizes = np.unique(blocks, return_inverse=True, return_counts=True)
    rank = np.empty(len(sizes), np.int64)
    rank[np.argsort(-sizes, kind="stable")] = np.arange(len(sizes))
    numbers: Ints = rank[position]
    return numbers


def counts(splits: Mapping[str, Ints]) -> dict[str, int]:
    """Return the number of different blocks of each split, from the block of each row."""
    return {role: len(np.unique(blocks)) for role, blocks in splits.items()}


def notes(column: str, splits: Mapping[str, Ints]) -> list[str]:
    """Say how the groups of a column were divided, and which files do not keep them apart.

    Args:
        column: Its name.
        splits: Block of each row, by split.
    """
    sizes = counts(splits).items()
    parts = [f"{role} {count} ({len(splits[role])} rows)" for role, count in sizes]
    found = [f"groups of {column!r} in each split: {', '.join(parts)}"]
    for first, second in itertools.combinations(splits, 2):
        shared = len(np.intersect1d(splits[first], splits[second]))
        if shared:
            found.append(
                f"{shared} groups of {column!r} are in both {first} and {second}, because the "
                "files were divided like that"
            )
    return found


def _take(
    sizes: npt.NDArray[np.float64], order: Ints, wanted: npt.NDArray[np.float64], most: int
) -> Bools:
    """Take blocks ``[B]`` of ``sizes [B, C]`` in this order, as long as each brings us nearer."""
    taken = np.zeros(len(sizes), bool)
    lacking = wanted.copy()
    for block in order.tolist():
        size = sizes[block]
        # |lacking - size|^2 < |lacking|^2
        if size @ size < 2 * (lacking @ size):
            taken[block] = True
            lacking -= size
            if taken.sum() == most:
                break
    if not taken.any():  # every block is more than twice what is wanted
        taken[int(np.argmin(np.square(sizes - wanted).sum(1)))] = True
    return taken
