"""BEATS, NO BEATS or INCONCLUSIVE, and the sentence that says why."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from orchestrator.report import naming
from orchestrator.report.parts import Comparison, Interval, McNemar, Verdict
from orchestrator.report.predictions import Arm, common_ids, paired
from orchestrator.report.statistics import ALPHA, combined_p, mcnemar, paired_difference

# Half a point of accuracy or F1: an advantage that is surely smaller is not worth a teacher.
MARGIN = 0.005
# With one seed the spread of training is unknown, with two its estimate is close to zero too often:
# 87 % of their intervals hold the truth in simulations, instead of 95 %.
MIN_SEEDS = 3

_LISTED = 5


def decide(interval: Interval) -> Verdict:
    """Return what an interval allows to claim.

    BEATS: all of it is above 0. NO BEATS: all of it is below the margin of 0.5 points, so that
    whatever advantage there may be is not worth having. INCONCLUSIVE: anything else, and always
    with fewer than three seeds, because the interval then hardly knows how much training varies.
    """
    if interval.seeds < MIN_SEEDS:
        return Verdict.INCONCLUSIVE
    if interval.low > 0.0:
        return Verdict.BEATS
    if interval.high < MARGIN:
        return Verdict.NO_BEATS
    return Verdict.INCONCLUSIVE


def compare(candidate: Arm, control: Arm, metric: str, split: str, method: str) -> Comparison:
    """Compare the candidate with one control on the examples and seeds they share.

    Args:
        candidate: Chosen on dev.
        control: What it is compared with.
        metric: ``accuracy`` or one of the F1 scores.
        split: ``test`` or ``dev``, the split the predictions are of.
        method: The candidate in words.
    """
    first, second = paired(candidate, control)
    ids = common_ids([first, second])
    first, second = first.on(ids), second.on(ids)
    targets = first.models[0].targets
    if targets is None or len(ids) == 0:
        return unknown(control.role, metric, split, "the two have no labelled example in common")
    a, b = first.classes(), second.classes()  # [S, N] each
    n_classes = first.models[0].logits.shape[1]
    interval = paired_difference(a, b, targets, metric, n_classes)
    tests = tuple(
        mcnemar(x, y, targets, seed) for x, y, seed in zip(a, b, first.seeds, strict=True)
    )
    verdict = decide(interval)
    return Comparison(
        control=control.role,
        verdict=verdict,
        sentence=_sentence(verdict, interval, control.role, metric, split, method, tests),
        metric=metric,
        split=split,
        interval=interval,
        mcnemar=tests,
        p_value=combined_p([test.p_value for test in tests]),
        identical=bool(np.array_equal(a, b)),
    )


def unknown(control: str, metric: str, split: str, reason: str) -> Comparison:
    """Return the comparison that could not be made."""
    sentence = (
        f"{Verdict.INCONCLUSIVE}: not compared with {naming.describe_role(control)}: {reason}."
    )
    return Comparison(control, Verdict.INCONCLUSIVE, sentence, metric, split)


def _sentence(
    verdict: Verdict,
    interval: Interval,
    control: str,
    metric: str,
    split: str,
    method: str,
    tests: Sequence[McNemar],
) -> str:
    name = f"{split} {naming.describe_metric(metric)}"
    other = naming.describe_role(control)
    low, high = naming.points(interval.low), naming.points(interval.high)
    claim = {
        Verdict.BEATS: f"{method} beats {other}",
        Verdict.NO_BEATS: f"{method} is not better than {other}, at most by {_positive(interval)}",
        Verdict.INCONCLUSIVE: f"{method} cannot be told from {other}",
    }[verdict]
    if interval.seeds < MIN_SEEDS:
        claim = f"{method} against {other}: only {MIN_SEEDS} seeds or more can decide"
    seeds = f"{interval.seeds} seed{'s' if interval.seeds > 1 else ''}"
    return (
        f"{verdict}: {claim}: {naming.points(interval.estimate)} points of {name} "
        f"(95 % interval {low} to {high}; {seeds}, {interval.examples:,} examples, "
        f"alpha = {ALPHA}; McNemar by seed: {_by_seed(tests)})."
    )


def _by_seed(tests: Sequence[McNemar]) -> str:
    """Return the p-values seed by seed, or their range when there are many."""
    values = [test.p_value for test in tests]
    if len(values) > _LISTED:
        return f"p from {min(values):.3f} to {max(values):.3f}"
    if max(values) < 0.001:
        return "p < 0.001"
    return "p = " + ", ".join(f"{value:.3f}" for value in values)


def _positive(interval: Interval) -> str:
    return f"{100 * max(interval.high, 0.0):.1f} points"
