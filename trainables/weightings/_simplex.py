"""Minimum of a quadratic form over the capped simplex.

``min_a a' G a`` with ``sum a = 1`` and ``0 <= a_k <= cap``, for a positive semidefinite ``G`` of
``K x K`` numbers. A primal active-set method: every iterate is feasible and no worse than the one
before, and a handful of ``K x K`` solves is exact where a first-order method would need hundreds
of steps on the nearly singular matrices that agreeing teachers produce.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]
Bounds = NDArray[np.int8]

_LOWER, _FREE, _UPPER = -1, 0, 1
# Added to a Gram matrix scaled to trace K: makes the optimum unique, far below sampling noise.
_RIDGE = 1e-12
_TOLERANCE = 1e-10


def capped_minimum(gram: Matrix, cap: float) -> Vector:
    """Return the minimiser ``[K]``; equal weights if ``gram`` vanishes or the cap leaves no choice.

    Args:
        gram: Symmetric, positive semidefinite ``[K, K]``.
        cap: Largest weight of one entry; at most ``1 / K`` forces equal weights.
    """
    size = len(gram)
    weights = np.full(size, 1.0 / size)
    trace = float(np.trace(gram))
    if size == 1 or cap <= 1.0 / size + 1e-9 or not trace > 1e-20:
        return weights
    # Without the scaling an absolute tolerance would accept the starting point for the tiny
    # gradients of large batches, as the reference solver does.
    gram = gram * (size / trace) + _RIDGE * np.eye(size)
    cap = min(cap, 1.0)
    bounds: Bounds = np.full(size, _FREE, dtype=np.int8)
    for _ in range(20 * size):
        if _descend(gram, weights, bounds, cap):
            continue
        if not _release(gram @ weights, bounds):
            break
    return weights


def _descend(gram: Matrix, weights: Vector, bounds: Bounds, cap: float) -> bool:
    """Move to the minimum over the free entries, in place; True if a bound stopped the move."""
    free = np.flatnonzero(bounds == _FREE)
    if len(free) < 2:
        return False
    step = np.zeros(len(weights))
    step[free] = _newton_step(gram, weights, free)
    with np.errstate(divide="ignore", invalid="ignore"):
        room = np.where(step > 0, (cap - weights) / step, np.inf)
        room = np.where(step < 0, -weights / step, room)
    blocking = int(np.argmin(room))
    length = min(1.0, max(0.0, float(room[blocking])))
    weights += length * step
    if length == 1.0:
        return False
    bounds[blocking] = _UPPER if step[blocking] > 0 else _LOWER
    weights[blocking] = cap if step[blocking] > 0 else 0.0
    return True


def _newton_step(gram: Matrix, weights: Vector, free: NDArray[np.intp]) -> Vector:
    """Return the step to the minimum over the free entries that keeps their sum."""
    system = np.ones((len(free) + 1, len(free) + 1))
    system[:-1, :-1] = gram[np.ix_(free, free)]
    system[-1, -1] = 0.0
    right = np.append(-(gram @ weights)[free], 0.0)
    solution: Vector = np.linalg.solve(system, right)
    return solution[:-1]


def _release(slope: Vector, bounds: Bounds) -> bool:
    """Free the entry whose bound holds the objective up most; False at the optimum.

    At the optimum the slope of a free entry is the common multiplier, that of an entry at zero is
    no smaller and that of an entry at the cap no larger. With nothing free, one of each kind is
    released: alone, neither could move.
    """
    tolerance = _TOLERANCE * float(np.abs(slope).max())
    can_rise = np.where(bounds == _LOWER, slope, np.inf)
    can_fall = np.where(bounds == _UPPER, slope, -np.inf)
    rising, falling = int(np.argmin(can_rise)), int(np.argmax(can_fall))
    if not (bounds == _FREE).any():
        if can_fall[falling] - can_rise[rising] <= tolerance:
            return False
        bounds[[rising, falling]] = _FREE
        return True
    multiplier = float(slope[bounds == _FREE].mean())
    gain_rising, gain_falling = multiplier - can_rise[rising], can_fall[falling] - multiplier
    if max(gain_rising, gain_falling) <= tolerance:
        return False
    bounds[rising if gain_rising >= gain_falling else falling] = _FREE
    return True
