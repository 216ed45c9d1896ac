"""Example ids, duplicates and stratified choices.

Everything here depends on the texts and the seed only, never on the order of the files: a row
keeps its id, and mostly its split, when rows are added or a file is sorted.

Legend: N rows, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


def normalised(text: str) -> str:
    """Return ``text`` with all runs of white space as single spaces: what makes texts equal."""
    return " ".join(text.split())


def fingerprints(texts: Sequence[str]) -> Ints:
    """Return a 63-bit hash of each normalised text, ``[N]``."""
    values = (_hash63(normalised(text).encode("utf-8")) for text in texts)
    return np.fromiter(values, np.int64, len(texts))


def example_ids(prints: Ints) -> Ints:
    """Return an id for each row, ``[N]``, all different.

    The first row of a text is named by its fingerprint, the n-th repetition by the hash of
    fingerprint and n.
    """
    ids = prints.copy()
    if len(np.unique(prints)) == len(prints):
        return ids
    taken: set[int] = set()
    counts: dict[int, int] = {}
    for row, value in enumerate(prints.tolist()):
        count = counts.get(value, 0)
        candidate = value
        while count or candidate in taken:
            candidate = _hash63(b"%d/%d" % (value, count))
            if candidate not in taken:
                break
            count += 1
        counts[value] = count + 1
        taken.add(candidate)
        ids[row] = candidate
    return ids


def repeated(prints: Ints) -> Bools:
    """Mark every row whose text came before, ``[N]``."""
    mask = np.ones(len(prints), bool)
    mask[np.unique(prints, return_index=True)[1]] = False
    return mask


def shuffled(ids: Ints, seed: int, purpose: str) -> Ints:
    """Return the positions of all rows in an order drawn from seed and purpose, ``[N]``."""
    key = f"{seed}/{purpose}".encode()
    draws = (_hash63(int(value).to_bytes(8, "little"), key) for value in ids.tolist())
    order: Ints = np.argsort(np.fromiter(draws, np.int64, len(ids)), kind="stable")
    return order


def stratified(labels: Ints, order: Ints, count: int, n_classes: int) -> Bools:
    """Choose ``count`` rows with the class shares of all rows, ``[N]``.

    Every class with at least two rows is on both sides, as far as ``count`` allows.

    Args:
        labels: Class of each row, ``[N]``.
        order: The rows in the order in which they are taken, ``[N]``.
        count: How many to choose, at most N.
        n_classes: C.
    """
    sizes = np.bincount(labels, minlength=n_classes)
    takes = _allocate(sizes, count)
    chosen = np.zeros(len(labels), bool)
    in_order = labels[order]
    for number, take in enumerate(takes.tolist()):
        chosen[order[in_order == number][:take]] = True
    return chosen


def _allocate(sizes: Ints, count: int) -> Ints:
    """Divide ``count`` among classes by size: largest remainders, at least 1, not all."""
    assert 0 <= count <= sizes.sum(), "callers check that there are enough rows"
    low = np.where((sizes >= 2) & (count >= (sizes >= 2).sum()), 1, 0)
    high = np.where(sizes >= 2, sizes - 1, sizes)
    exact = sizes * (count / max(1, sizes.sum()))
    takes: Ints = np.clip(np.floor(exact).astype(np.int64), low, high)
    while (missing := count - int(takes.sum())) != 0:
        step = 1 if missing > 0 else -1
        room = takes < high if step > 0 else takes > low
        if not room.any():
            # Both sides of every class cannot be kept; the count is what was asked for.
            high, low = sizes, np.zeros_like(low)
            continue
        # The class furthest from its exact share moves first; ties go to the first class.
        gap = np.where(room, (exact - takes) * step, -np.inf)
        takes[int(np.argmax(gap))] += step
    return takes


def _hash63(content: bytes, key: bytes = b"") -> int:
    return int.from_bytes(blake2b(content, digest_size=8, key=key).digest(), "big") >> 1
