from __future__ import annotations

from typing import Any

import numpy as np
import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution

from orchestrator.report.build import build_report
from orchestrator.report.importance import importance

Sweep = Any  # the builder of conftest.py, which cannot be imported


def fill(sweep: Sweep, trials: int) -> None:
    """Add students whose score depends on the temperature only."""
    rng = np.random.default_rng(0)
    for _ in range(trials):
        temperature, noise = float(rng.uniform(1, 10)), float(rng.uniform(0.1, 10))
        weighting = str(rng.choice(["average", "entropy"]))
        sweep.student(
            "search",
            0.8 - 0.01 * (temperature - 4) ** 2 / 4,
            params={"loss.temperature": temperature, "alpha": noise, "weighting": weighting},
        )


@pytest.mark.parametrize(("trials", "method"), [(40, "fANOVA"), (240, "PED-ANOVA")])
def test_the_parameter_that_matters_is_found(sweep: Sweep, trials: int, method: str) -> None:
    fill(sweep, trials)
    found = importance(build_report(sweep.record(), sweep.store))
    assert found is not None
    assert found.method == method
    assert next(iter(found.shares)) == "loss.temperature"
    assert found.shares["loss.temperature"] > 0.8
    assert sum(found.shares.values()) == pytest.approx(1.0)


def test_trials_of_the_ledger_may_be_given(sweep: Sweep) -> None:
    fill(sweep, 5)
    ranges = {"a": FloatDistribution(0, 1), "b": CategoricalDistribution(["x", "y"])}
    frozen = [
        optuna.trial.create_trial(
            params={"a": i / 20, "b": "xy"[i % 2]}, distributions=ranges, value=i / 20
        )
        for i in range(20)
    ]
    frozen.append(optuna.trial.create_trial(state=optuna.trial.TrialState.FAIL))
    found = importance(build_report(sweep.record(), sweep.store), frozen)
    assert found is not None
    assert found.shares["a"] > 0.8


def test_too_little_to_say(sweep: Sweep) -> None:
    fill(sweep, 5)
    assert importance(build_report(sweep.record(), sweep.store)) is None
    for _ in range(10):
        sweep.student("search", 0.5, params={"loss": "kd"})
    assert importance(build_report(sweep.record(), sweep.store)) is None
