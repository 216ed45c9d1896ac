"""The trade-off between score and size: front and hypervolume of complete trials.

Legend: N trials, D objectives; costs are objectives turned so that smaller is better.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orchestrator.records import TrialRecord, TrialState
from orchestrator.report.parts import Pareto

Array = NDArray[Any]

# Not the latency, unless the config asks for it: it is measured while others train, and its noise
# would put half of the trials on the front.
_SIZES = ("parameters", "model_bytes")


def analyse(
    trials: Sequence[TrialRecord], objective: tuple[str, str], configured: Mapping[str, str]
) -> Pareto:
    """Return front and hypervolume of the student stage.

    The objectives are the ranking one, those of the config, and parameters and bytes, as far as
    every complete trial has them. A pruned trial is never on the front: its score is of an
    unfinished training.

    Args:
        trials: Distinct trials in the order they ran.
        objective: Name and direction of the ranking metric.
        configured: Names and directions of the config's objectives.
    """
    complete = [trial for trial in trials if _finite(trial, objective[0])]
    objectives = {objective[0]: objective[1], **configured}
    for name in _SIZES:
        objectives.setdefault(name, "min")
    shared = tuple(
        (name, direction)
        for name, direction in objectives.items()
        if all(_finite(trial, name) for trial in complete)
    )
    if not complete:
        return Pareto(((objective[0], objective[1]),), (), ())
    costs = np.array(
        [[_cost(trial, name, direction) for name, direction in shared] for trial in complete]
    )
    chosen = np.flatnonzero(front(costs))
    order = chosen[np.argsort(costs[chosen, 0], kind="stable")]
    names = [name for name, _ in shared]
    # By rank, not by the config's order: a config read back from its file has lost that.
    wanted = [name for name in ("latency_ms", "parameters") if name in names[1:]]
    against = names.index(wanted[0]) if wanted else min(1, len(names) - 1)
    return Pareto(
        objectives=shared,
        front=tuple(complete[index].key for index in order),
        hypervolume=tuple(hypervolume_history(costs[:, 0], costs[:, against])),
        against=names[against],
    )


def front(costs: Array) -> Array:
    """Tell which rows of ``[N, D]`` no other row dominates; equal rows stay together, ``[N]``."""
    unique, inverse = np.unique(costs, axis=0, return_inverse=True)
    no_worse = np.ones((len(unique), len(unique)), dtype=bool)
    for column in unique.T:
        no_worse &= column[:, None] <= column[None, :]
    dominated = no_worse.sum(0) > 1  # every row is no worse than itself
    return np.asarray(~dominated[inverse.reshape(-1)])


def hypervolume_history(scores: Array, sizes: Array) -> list[float]:
    """Return the dominated share of the score-by-size rectangle after each trial.

    The rectangle spans the worst to the best of both seen in the sweep; sizes count by their
    logarithm. A single value in a direction has no extent and counts as full.

    Args:
        scores: Costs ``[N]``, in the order the trials ran.
        sizes: Costs ``[N]``.
    """
    x = _unit(scores)
    y = _unit(np.log(np.maximum(sizes, 1e-9)) if (sizes > 0).all() else sizes)
    steps: list[tuple[float, float]] = []  # the front so far: x ascending, y descending
    history: list[float] = []
    for point in zip(x.tolist(), y.tolist(), strict=True):
        if not any(a <= point[0] and b <= point[1] for a, b in steps):
            kept = [(a, b) for a, b in steps if not (point[0] <= a and point[1] <= b)]
            steps = sorted([*kept, point])
        history.append(_area(steps))
    return history


def _area(steps: Sequence[tuple[float, float]]) -> float:
    total, ceiling = 0.0, 1.0
    for a, b in steps:
        total += (1.0 - a) * (ceiling - b)
        ceiling = b
    return total


def _unit(values: Array) -> Array:
    low, high = values.min(), values.max()
    return np.asarray((values - low) / (high - low) if high > low else np.zeros(len(values)))


def _finite(trial: TrialRecord, name: str) -> bool:
    value = trial.metrics.get(name)
    return trial.state is TrialState.COMPLETE and value is not None and math.isfinite(value)


def _cost(trial: TrialRecord, name: str, direction: str) -> float:
    return -trial.metrics[name] if direction == "max" else trial.metrics[name]
