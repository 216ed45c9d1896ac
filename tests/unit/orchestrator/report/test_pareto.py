from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest

from orchestrator.records import Stage, TrialRecord, TrialState
from orchestrator.report import pareto


def trial(key: str, score: float, parameters: float, state: str = "complete") -> TrialRecord:
    metrics = {"val_f1_macro": score, "parameters": parameters}
    return TrialRecord(Stage.STUDENTS, key, TrialState(state), "search", metrics=metrics)


def test_front_by_hand() -> None:
    costs = np.array([[1, 5], [2, 2], [3, 3], [5, 1], [2, 2], [5, 5]])
    assert pareto.front(costs).tolist() == [True, True, False, True, True, False]


def test_front_in_one_dimension_is_the_minimum() -> None:
    assert pareto.front(np.array([[2.0], [1.0], [1.0]])).tolist() == [False, True, True]


def test_hypervolume_by_hand() -> None:
    # Sizes e^0, e^1, e^2 and scores 0, 1, 2 (as costs): on the unit square the points are
    # (1, 0), (0.5, 0.5), (0, 1); only the middle one dominates an area, a quarter.
    scores, sizes = np.array([2.0, 1.0, 0.0]), np.exp([0.0, 1.0, 2.0])
    assert pareto.hypervolume_history(scores, sizes) == pytest.approx([0.0, 0.25, 0.25])


def test_hypervolume_never_shrinks_and_ends_at_the_ideal() -> None:
    rng = np.random.default_rng(0)
    scores, sizes = rng.random(50), rng.random(50) + 0.1
    scores[30], sizes[30] = -1.0, 0.01
    history = pareto.hypervolume_history(scores, sizes)
    assert all(a <= b + 1e-12 for a, b in itertools.pairwise(history))
    assert history[30:] == pytest.approx([1.0] * 20)


def test_pruned_trials_are_never_on_the_front() -> None:
    trials = [
        trial("big", 0.9, 100),
        trial("small", 0.8, 10),
        trial("worse", 0.7, 100),
        trial("pruned", 0.99, 1, "pruned"),
    ]
    found = pareto.analyse(trials, ("val_f1_macro", "max"), {})
    assert found.front == ("big", "small")
    assert found.objectives == (("val_f1_macro", "max"), ("parameters", "min"))
    assert len(found.hypervolume) == 3


def test_an_objective_that_is_not_measured_everywhere_is_left_out() -> None:
    trials = [trial("a", 0.9, 100), trial("b", float("nan"), 1)]
    found = pareto.analyse(trials, ("val_f1_macro", "max"), {"latency_ms": "min"})
    assert found.front == ("a",)
    assert ("latency_ms", "min") not in found.objectives


def timed(key: str, score: float, parameters: float, latency: float) -> TrialRecord:
    made = trial(key, score, parameters)
    return dataclasses.replace(made, metrics={**made.metrics, "latency_ms": latency})


def test_latency_counts_where_the_config_asks_for_it() -> None:
    trials = [timed("a", 0.9, 100, 3), timed("b", 0.8, 100, 2), timed("c", 0.8, 10, 9)]
    score = ("val_f1_macro", "max")
    alone = pareto.analyse(trials, score, {})
    assert (alone.front, alone.against) == (("a", "c"), "parameters")
    asked = pareto.analyse(trials, score, {"latency_ms": "min", "parameters": "min"})
    assert (set(asked.front), asked.against) == ({"a", "b", "c"}, "latency_ms")
    assert asked.hypervolume != alone.hypervolume


def test_nothing_complete() -> None:
    found = pareto.analyse([trial("a", 0.9, 1, "failed")], ("val_f1_macro", "max"), {})
    assert (found.front, found.hypervolume) == ((), ())
