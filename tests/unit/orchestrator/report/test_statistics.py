from __future__ import annotations

import math
import time

import numpy as np
import pytest
from statsmodels.stats import contingency_tables

from orchestrator.report import statistics

# Worked by hand: class 0 has 1 hit of 2 + 2, class 1 has 2 of 2 + 3, class 2 has 1 of 2 + 1.
TARGETS = np.array([0, 0, 1, 1, 2, 2])
PREDICTIONS = np.array([0, 1, 1, 1, 2, 0])


@pytest.mark.parametrize(
    ("metric", "expected"),
    [
        ("accuracy", 4 / 6),
        ("f1_micro", 4 / 6),
        ("f1_macro", (1 / 2 + 4 / 5 + 2 / 3) / 3),
        ("f1_weighted", (1 / 2 + 4 / 5 + 2 / 3) / 3),
    ],
)
def test_score_by_hand(metric: str, expected: float) -> None:
    assert statistics.score(PREDICTIONS, TARGETS, metric, 3) == pytest.approx(expected, abs=1e-12)
    # A class that never occurs does not enter the average, as in trainables.metrics.
    assert statistics.score(PREDICTIONS, TARGETS, metric, 4) == pytest.approx(expected, abs=1e-12)


def test_score_refuses_other_metrics() -> None:
    with pytest.raises(ValueError, match="'loss'"):
        statistics.score(PREDICTIONS, TARGETS, "loss", 3)


def test_spread_uses_the_sample_deviation() -> None:
    found = statistics.spread([0.1, 0.2, 0.3])
    assert (found.mean, found.std, found.n) == (pytest.approx(0.2), pytest.approx(0.1), 3)
    assert statistics.spread([0.4]).std == 0.0


def test_mcnemar_is_exact_for_few_discordant_pairs() -> None:
    targets = np.zeros(20, dtype=np.int64)
    first, second = targets.copy(), targets.copy()
    first[0] = 1  # one example only the second has right
    second[1:8] = 1  # seven only the first has right
    found = statistics.mcnemar(first, second, targets, seed=5)
    assert (found.only_candidate, found.only_control, found.exact) == (7, 1, True)
    # Two-sided binomial: 2 * (C(8,0) + C(8,1)) / 2^8 = 18 / 256.
    assert found.p_value == pytest.approx(18 / 256, abs=1e-12)


def test_mcnemar_uses_chi_square_for_many() -> None:
    targets = np.zeros(100, dtype=np.int64)
    first, second = targets.copy(), targets.copy()
    first[:10] = 1
    second[10:40] = 1
    found = statistics.mcnemar(first, second, targets, seed=0)
    # (|30 - 10| - 1)^2 / 40 = 9.025 with one degree of freedom.
    assert not found.exact
    assert found.p_value == pytest.approx(math.erfc(math.sqrt(9.025 / 2)), rel=1e-9)


def test_mcnemar_agrees_with_statsmodels() -> None:
    rng = np.random.default_rng(2)
    for rows in (30, 60, 400):
        targets = np.zeros(rows, dtype=np.int64)
        first, second = rng.integers(2, size=(2, rows))
        found = statistics.mcnemar(first, second, targets, seed=0)
        table = [[0, found.only_candidate], [found.only_control, 0]]
        expected = contingency_tables.mcnemar(table, exact=found.exact, correction=True)
        assert found.p_value == pytest.approx(min(1.0, expected.pvalue), rel=1e-9)


def test_mcnemar_of_identical_models_is_one() -> None:
    assert statistics.mcnemar(PREDICTIONS, PREDICTIONS, TARGETS, seed=0).p_value == 1.0


def test_combined_p_is_twice_the_median() -> None:
    assert statistics.combined_p([0.5, 0.01, 0.03]) == pytest.approx(0.06)
    assert statistics.combined_p([0.7, 0.8]) == 1.0
    assert statistics.combined_p([0.04]) == 0.04


def test_calibration_error_by_hand() -> None:
    # Confident 0.9 and right, 0.6 and wrong: (|1 - 0.9| + |0 - 0.6|) / 2.
    logits = np.log(np.array([[0.9, 0.1], [0.6, 0.4]]))
    found = statistics.expected_calibration_error(logits, np.array([0, 1]))
    assert found == pytest.approx(0.35, abs=1e-12)


def test_interval_over_examples_matches_its_formula() -> None:
    # 60 examples only the first has right, 20 only the second, of 400: the difference is 0.1 with
    # variance (80/400 - 0.1^2) / 400 = 0.000475; t with 399 degrees of freedom is 1.965927.
    targets = np.zeros(400, dtype=np.int64)
    first, second = targets.copy(), targets.copy()
    second[:60] = 1
    first[60:80] = 1
    found = statistics.paired_difference(
        first[None], second[None], targets, "accuracy", 2, resamples=8000
    )
    assert found.estimate == pytest.approx(0.1, abs=1e-12)
    half = 1.965927 * math.sqrt(0.000475)
    assert found.high - found.estimate == pytest.approx(half, rel=0.03)
    assert found.estimate - found.low == pytest.approx(half, rel=0.03)
    assert (found.seeds, found.examples, found.confidence) == (1, 400, 0.95)


def test_interval_over_seeds_matches_its_formula() -> None:
    # The control is wrong on the first 30, 60, 90 of 300 examples in its three seeds. Differences
    # 0.1, 0.2, 0.3: variance between seeds 0.01 / 3. Averaged over seeds an example differs by
    # 1, 2/3, 1/3 (30 each) or 0: variance (46.667/300 - 0.2^2) / 300 = 3.85185e-4. Together a
    # standard error of 0.0609797 with 2.48871 degrees of freedom, t = 3.586288.
    targets = np.zeros(300, dtype=np.int64)
    first = np.zeros((3, 300), dtype=np.int64)
    second = np.stack([(np.arange(300) < 30 * s).astype(np.int64) for s in (1, 2, 3)])
    found = statistics.paired_difference(first, second, targets, "accuracy", 2, resamples=8000)
    assert found.estimate == pytest.approx(0.2, abs=1e-12)
    assert found.high - found.estimate == pytest.approx(3.586288 * 0.0609797, rel=0.02)


def test_identical_models_have_an_empty_interval() -> None:
    both = np.stack([PREDICTIONS, PREDICTIONS])
    found = statistics.paired_difference(both, both, TARGETS, "f1_macro", 3)
    assert (found.low, found.estimate, found.high) == (0.0, 0.0, 0.0)


def test_resampled_scores_agree_with_a_plain_loop() -> None:
    rng = np.random.default_rng(3)
    targets = rng.integers(4, size=50)
    models = rng.integers(4, size=(4, 50))
    outcomes = np.vstack([targets, models]).T
    totals = (statistics._design(outcomes, 4) @ np.ones((50, 1)))[:, 0]
    parts = totals[4:].reshape(4, 2, 4)
    for model, (hits, predicted) in zip(models, parts, strict=True):
        found = statistics._scores(hits, predicted, totals[:4], "f1_macro")
        assert float(found) == pytest.approx(
            statistics.score(model, targets, "f1_macro", 4), abs=1e-12
        )


def test_result_does_not_depend_on_the_order_of_examples() -> None:
    rng = np.random.default_rng(4)
    targets = rng.integers(3, size=200)
    first, second = rng.integers(3, size=(2, 200)), rng.integers(3, size=(2, 200))
    order = rng.permutation(200)
    given = statistics.paired_difference(first, second, targets, "f1_macro", 3)
    mixed = statistics.paired_difference(
        first[:, order], second[:, order], targets[order], "f1_macro", 3
    )
    assert mixed == given


@pytest.mark.slow
def test_intervals_hold_what_they_promise() -> None:
    """Two equal methods, three seeds: about 95 of 100 intervals must contain 0."""
    rng = np.random.default_rng(0)
    held = 0
    for repeat in range(200):
        hardness = rng.normal(size=300)
        skill = rng.normal(1.0, 0.03, size=(6, 1))
        wrong = (hardness + rng.normal(0.0, 0.3, size=(6, 300)) > skill).astype(np.int64)
        targets = np.zeros(300, dtype=np.int64)
        found = statistics.paired_difference(
            wrong[:3], wrong[3:], targets, "accuracy", 2, seed=repeat, resamples=300
        )
        held += found.low <= 0.0 <= found.high
    assert held >= 184  # 92 %


def test_ten_thousand_examples_stay_cheap() -> None:
    rng = np.random.default_rng(1)
    targets = rng.integers(10, size=10_000)
    models = np.where(rng.random((6, 10_000)) < 0.85, targets, rng.integers(10, size=(6, 10_000)))
    started = time.process_time()
    statistics.paired_difference(models[:3], models[3:], targets, "f1_macro", 10)
    # A third of a second; a loop over examples or resamples would take minutes.
    assert time.process_time() - started < 10.0
