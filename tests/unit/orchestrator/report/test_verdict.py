from __future__ import annotations

import numpy as np
import pytest

from orchestrator.report import verdict
from orchestrator.report.parts import Interval, Verdict
from orchestrator.report.predictions import Arm, Predictions


@pytest.mark.parametrize(
    ("low", "high", "seeds", "expected"),
    [
        (0.001, 0.02, 3, Verdict.BEATS),
        (0.001, 0.004, 3, Verdict.BEATS),
        (-0.02, -0.001, 3, Verdict.NO_BEATS),
        (-0.02, 0.0049, 3, Verdict.NO_BEATS),
        (-0.02, 0.006, 3, Verdict.INCONCLUSIVE),
        (0.0, 0.02, 3, Verdict.INCONCLUSIVE),
        (0.01, 0.02, 1, Verdict.INCONCLUSIVE),
        (-0.02, -0.01, 2, Verdict.INCONCLUSIVE),
    ],
)
def test_decide(low: float, high: float, seeds: int, expected: Verdict) -> None:
    assert verdict.decide(Interval((low + high) / 2, low, high, 0.95, seeds, 100)) is expected


def arm(role: str, predictions: list[list[int]], targets: list[int], ids: list[int]) -> Arm:
    models = tuple(
        Predictions(np.array(ids), np.eye(2, dtype=np.float32)[row], np.array(targets))
        for row in predictions
    )
    return Arm(role, tuple(range(len(predictions))), models)


def test_compare_uses_the_examples_and_seeds_both_have() -> None:
    candidate = arm("candidate", [[0, 0, 1, 1], [0, 0, 1, 1]], [0, 0, 1, 1], [1, 2, 3, 4])
    control = arm("control:plain", [[0, 1, 1], [1, 1, 1], [1, 1, 1]], [0, 0, 1], [1, 2, 3])
    found = verdict.compare(candidate, control, "accuracy", "test", "kd")
    assert found.interval is not None
    # The candidate has all three right; the control 2 of 3 and 1 of 3.
    assert found.interval.estimate == pytest.approx((1 / 3 + 2 / 3) / 2)
    assert (found.interval.seeds, found.interval.examples) == (2, 3)
    assert [(test.only_candidate, test.only_control) for test in found.mcnemar] == [(1, 0), (2, 0)]
    assert not found.identical


def test_identical_predictions_do_not_beat() -> None:
    both = [[0, 1], [0, 1], [0, 1]]
    found = verdict.compare(
        arm("candidate", both, [0, 1], [1, 2]),
        arm("control:average", both, [0, 1], [1, 2]),
        "f1_macro",
        "test",
        "kd",
    )
    assert found.identical
    assert found.verdict is Verdict.NO_BEATS
    assert found.sentence == (
        "NO BEATS: kd is not better than the same student with the plain average of the teachers, "
        "at most by 0.0 points: +0.0 points of test macro F1 (95 % interval +0.0 to +0.0; 3 seeds, "
        "2 examples, alpha = 0.05; McNemar by seed: p = 1.000, 1.000, 1.000)."
    )


def test_nothing_in_common_is_inconclusive() -> None:
    found = verdict.compare(
        arm("candidate", [[0]], [0], [1]),
        arm("control:plain", [[0]], [0], [2]),
        "accuracy",
        "test",
        "kd",
    )
    assert found.verdict is Verdict.INCONCLUSIVE
    assert found.interval is None
    assert "no labelled example in common" in found.sentence
