"""Statistics of paired predictions: pure functions of arrays.

Legend: N examples, C classes, S seeds, U distinct outcomes, R resamples.

Two things vary when an experiment is repeated: the examples one happens to test on and the seeds
one happens to train with. An average or a vote over seeds describes an ensemble that nobody
ships, and pooling the seeds as if they were S times N examples counts every example S times.
So ``paired_difference`` accounts for both, and McNemar's test, which speaks about two fixed
models only, is run per seed and reported beside it as supporting evidence.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orchestrator.report.parts import Interval, McNemar, Spread

Array = NDArray[Any]

ALPHA = 0.05
RESAMPLES = 2000
_EXACT_BELOW = 25  # discordant pairs; the chi-square approximation is poor with fewer
_ECE_BINS = 15
_CHUNK = 500  # resamples per step, so that memory stays flat: U x 500 counts


def spread(values: Sequence[float]) -> Spread:
    """Return mean, sample standard deviation (0 for one value) and the number of values."""
    data = np.asarray(values, dtype=np.float64)
    deviation = float(data.std(ddof=1)) if data.size > 1 else 0.0
    return Spread(float(data.mean()), deviation, int(data.size))


def f1_per_class(confusion: Array) -> Array:
    """Return the F1 score of each class, ``[C]``; 0 for a class that never occurs.

    Args:
        confusion: Counts ``[..., target C, prediction C]``.
    """
    hits = np.diagonal(confusion, axis1=-2, axis2=-1)
    mass = confusion.sum(-1) + confusion.sum(-2)
    scores = np.zeros(hits.shape)
    np.divide(2.0 * hits, mass, out=scores, where=mass > 0)
    return scores


def confusion_matrix(predictions: Array, targets: Array, n_classes: int) -> Array:
    """Count pairs: entry ``[target, prediction]`` of shape ``[C, C]``, int64."""
    pairs = targets * n_classes + predictions
    return np.bincount(pairs, minlength=n_classes**2).reshape(n_classes, n_classes)


def score(predictions: Array, targets: Array, metric: str, n_classes: int) -> float:
    """Return ``accuracy``, ``f1_macro``, ``f1_micro`` or ``f1_weighted`` of predictions ``[N]``.

    The macro average runs over the classes that occur, as ``trainables.metrics`` defines it.
    """
    confusion = confusion_matrix(predictions, targets, n_classes)
    return float(
        _scores(np.diag(confusion), confusion.sum(0), confusion.sum(1), metric)  # [C] each
    )


def expected_calibration_error(logits: Array, targets: Array) -> float:
    """Return the gap between confidence and accuracy over 15 equal bins of confidence.

    Guo et al. 2017, equation 3. 0 is perfect; probabilities are the softmax of logits ``[N, C]``.
    """
    confidence = np.exp(log_softmax(logits)).max(1)
    correct = logits.argmax(1) == targets
    bins = np.minimum((confidence * _ECE_BINS).astype(np.int64), _ECE_BINS - 1)
    gaps = np.bincount(bins, weights=correct - confidence, minlength=_ECE_BINS)
    return float(np.abs(gaps).sum() / len(targets))


def log_softmax(logits: Array) -> Array:
    """Return log probabilities ``[N, C]`` in double precision."""
    shifted = logits.astype(np.float64) - logits.max(1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(1, keepdims=True)))


def mcnemar(first: Array, second: Array, targets: Array, seed: int) -> McNemar:
    """Test whether two models are equally often right, on the same examples ``[N]``.

    Exact binomial below 25 discordant pairs, else chi-square with continuity correction.
    """
    from scipy.special import bdtr, chdtrc

    right_first, right_second = first == targets, second == targets
    only_first = int((right_first & ~right_second).sum())
    only_second = int((right_second & ~right_first).sum())
    discordant = only_first + only_second
    exact = discordant < _EXACT_BELOW
    if exact:
        p_value = 2.0 * float(bdtr(min(only_first, only_second), discordant, 0.5))
    else:
        p_value = float(chdtrc(1, (abs(only_first - only_second) - 1) ** 2 / discordant))
    return McNemar(seed, only_first, only_second, min(p_value, 1.0), exact)


def combined_p(p_values: Sequence[float]) -> float:
    """Combine p-values that depend on each other: twice their median, at most 1.

    The seeds share their test examples, so methods for independent tests (Fisher, Stouffer) would
    be too sure. Twice the median is valid under any dependence (Rüger 1978; Vovk and Wang 2020).
    One p-value is returned as it is.
    """
    if len(p_values) == 1:
        return p_values[0]
    return min(1.0, 2.0 * float(np.median(p_values)))


def paired_difference(
    first: Array,
    second: Array,
    targets: Array,
    metric: str,
    n_classes: int,
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Interval:
    """Estimate by how much the first method scores higher, with a 95 % interval.

    The variance has two parts: of the examples, by a paired bootstrap of the difference averaged
    over seeds (R resamples, the same examples for every model); and of the seeds, by the spread of
    the S per-seed differences. Resampling the seeds as well was tried and rejected: there are
    too few of them, the bootstrap then understates their variance by (S-1)/S and counts the
    noise of each (seed, example) three times. The interval is the estimate -+ t standard
    errors, where t has the degrees of freedom of Welch and Satterthwaite: near S - 1 when the
    seeds dominate, near N - 1 when the examples do. Coverage in simulations is 92-99 % for three
    seeds, 87-99 % for two. With one seed only the examples vary.

    Args:
        first: Predicted classes ``[S, N]``; row s was trained with the same seed in both.
        second: Predicted classes ``[S, N]`` of the method it is compared with.
        targets: True classes ``[N]``.
        metric: As in ``score``.
        n_classes: C.
        seed: Of the resampling.
        resamples: R.
    """
    n_seeds, n_rows = first.shape
    observed = np.array(
        [
            score(a, targets, metric, n_classes) - score(b, targets, metric, n_classes)
            for a, b in zip(first, second, strict=True)
        ]
    )
    rng = np.random.default_rng(seed)
    drawn = _resampled_differences(first, second, targets, metric, n_classes, rng, resamples)
    over_examples = float(drawn.mean(1).var(ddof=1))
    over_seeds = float(observed.var(ddof=1)) / n_seeds if n_seeds > 1 else 0.0
    error = (over_examples + over_seeds) ** 0.5
    half = _t_quantile(over_examples, over_seeds, n_rows, n_seeds) * error
    estimate = float(observed.mean())
    return Interval(estimate, estimate - half, estimate + half, 1 - ALPHA, n_seeds, n_rows)


def _t_quantile(over_examples: float, over_seeds: float, n_rows: int, n_seeds: int) -> float:
    from scipy.special import stdtrit

    total = over_examples + over_seeds
    if total == 0.0:
        return 0.0
    seeds_part = over_seeds**2 / (n_seeds - 1) if n_seeds > 1 else 0.0
    freedom = total**2 / (over_examples**2 / max(n_rows - 1, 1) + seeds_part)
    return float(stdtrit(freedom, 1 - ALPHA / 2))


def _resampled_differences(
    first: Array,
    second: Array,
    targets: Array,
    metric: str,
    n_classes: int,
    rng: np.random.Generator,
    resamples: int,
) -> Array:
    """Return the metric's difference per resample of the examples and seed, ``[R, S]``.

    Examples with the same target and the same predictions everywhere are interchangeable, so
    only how often each of the U distinct outcomes is drawn matters: a multinomial count.
    """
    n_seeds, n_rows = first.shape
    outcomes, counts = np.unique(
        np.vstack([targets, first, second]).T, axis=0, return_counts=True
    )  # [U, 1 + 2S], [U]
    design = _design(outcomes, n_classes)  # sparse [C + 2S * 2C, U]
    chunks = []
    for start in range(0, resamples, _CHUNK):
        size = min(_CHUNK, resamples - start)
        draws = rng.multinomial(n_rows, counts / n_rows, size=size)  # [R, U]
        totals = design @ draws.T.astype(np.float64)  # [C + 4SC, R]
        support = totals[:n_classes].T[:, None, :]  # [R, 1, C]
        parts = totals[n_classes:].reshape(2 * n_seeds, 2, n_classes, size)
        hits, predicted = parts.transpose(1, 3, 0, 2)  # [R, 2S, C] each
        scores = _scores(hits, predicted, support, metric)  # [R, 2S]
        chunks.append(scores[:, :n_seeds] - scores[:, n_seeds:])
    return np.concatenate(chunks)


def _design(outcomes: Array, n_classes: int) -> Any:
    """Return the sparse 0/1 matrix that turns counts of outcomes into per-class totals.

    Rows: the target's class (C), then for each of the 2S models its hits (C) and its
    predictions (C).
    """
    from scipy.sparse import csr_array

    n_outcomes, width = outcomes.shape
    columns = np.arange(n_outcomes)
    targets = outcomes[:, 0]
    rows, places = [targets], [columns]
    for model in range(width - 1):
        base = n_classes * (1 + 2 * model)
        predictions = outcomes[:, 1 + model]
        right = predictions == targets
        rows += [base + targets[right], base + n_classes + predictions]
        places += [columns[right], columns]
    row, column = np.concatenate(rows), np.concatenate(places)
    shape = (n_classes * (2 * width - 1), n_outcomes)
    return csr_array((np.ones(len(row)), (row, column)), shape=shape)


def _scores(hits: Array, predicted: Array, support: Array, metric: str) -> Array:
    """Return the metric from per-class counts ``[..., C]``."""
    total = support.sum(-1)
    if metric in {"accuracy", "f1_micro"}:
        return np.asarray(hits.sum(-1) / total)
    mass = predicted + support
    f1 = np.divide(2.0 * hits, mass, out=np.zeros(np.shape(mass)), where=mass > 0)
    if metric == "f1_macro":
        return np.asarray(f1.sum(-1) / np.maximum((mass > 0).sum(-1), 1))
    if metric == "f1_weighted":
        return np.asarray((f1 * support).sum(-1) / total)
    raise ValueError(f"metric must be accuracy or f1_macro, f1_micro, f1_weighted, got {metric!r}")
