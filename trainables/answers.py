"""Asking models about a split: one model, one per fold, or several together.

Legend: N examples, C classes, D features, M models.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from trainables.device import autocast
from trainables.encoded import Encoded
from trainables.errors import TrialFailed
from trainables.evaluation import Predictor
from trainables.folds import inside
from trainables.losses._math import log_probabilities

Resolved = Literal["fp32", "bf16"]

CHECKED_ROWS = 64
# Half precision moves a logit by about 2^-8 of its size; more than this is another model.
TOLERANCE = {"fp32": 1e-3, "bf16": 0.15}


@dataclass(frozen=True)
class Answers:
    """What was said about the rows of a split.

    Attributes:
        logits: ``[N, C]`` float32.
        features: ``[N, D]`` float32, or None.
        head: The last layer that turns features into logits, ``[C, D]`` and ``[C]``, or None.
        drift: Largest relative difference between these logits and the same rows asked alone.
    """

    logits: Tensor
    features: Tensor | None = None
    head: tuple[Tensor, Tensor] | None = None
    drift: float = 0.0


def ask(
    model: Any, encoded: Encoded, features: bool, *, device: torch.device, precision: Resolved
) -> Answers:
    """Run a model over a split.

    A sample of rows is computed a second time in fp32, one by one without padding, and must
    agree.

    Raises:
        TrialFailed: The two disagree.
    """
    with autocast(precision, device):
        logits, pooled = Predictor(encoded, device=device)(model, features=features)
    drift = _check(model, encoded, logits, device, precision)
    if pooled is None:
        return Answers(logits, drift=drift)
    weight, bias = model.head()
    return Answers(logits, pooled, (weight.detach().cpu(), bias.detach().cpu()), drift)


def ask_folds(
    models: Iterable[nn.Module],
    folds: int,
    encoded: Encoded,
    *,
    device: torch.device,
    precision: Resolved,
) -> Answers:
    """Ask about each row the model that has not seen the row's fold.

    Args:
        models: One for each fold, in order; taken one at a time, so that only one is in memory.
        folds: How many.
        encoded: The rows.
        device: Where the models are.
        precision: Of the forward passes.
    """
    logits, drift = torch.empty(0), 0.0
    for fold, model in enumerate(models):
        rows = inside(encoded.ids, fold, folds, encoded.blocks)
        if not len(rows):
            continue
        answers = ask(model, encoded.subset(rows), False, device=device, precision=precision)
        if not len(logits):
            logits = torch.empty(len(encoded), answers.logits.shape[1])
        logits[rows] = answers.logits
        drift = max(drift, answers.drift)
    return Answers(logits, drift=drift)


def ask_together(
    models: Iterable[nn.Module], encoded: Encoded, *, device: torch.device, precision: Resolved
) -> Answers:
    """Ask several models and average their probabilities; the logits are its logarithm."""
    found = [ask(model, encoded, False, device=device, precision=precision) for model in models]
    logits = mean_log_probabilities(torch.stack([answers.logits for answers in found]))
    return Answers(logits, drift=max(answers.drift for answers in found))


def mean_log_probabilities(logits: Tensor) -> Tensor:
    """Return ``log mean_m softmax(z_m)`` ``[N, C]`` of the logits ``[M, N, C]`` of M models."""
    return torch.logsumexp(log_probabilities(logits), dim=0) - torch.tensor(len(logits)).log()


def mean_entropy(logits: Tensor) -> Tensor:
    """Return the mean entropy of the predictions in nats; scalar from logits ``[N, C]``."""
    entropy: Tensor = torch.special.entr(torch.softmax(logits, dim=-1)).sum(dim=-1)
    return entropy.mean()


def _check(
    model: nn.Module, encoded: Encoded, logits: Tensor, device: torch.device, precision: Resolved
) -> float:
    """Return the largest relative difference on evenly spaced rows, computed one by one."""
    rows = range(0, len(logits), max(1, len(logits) // CHECKED_ROWS))
    predictor = Predictor(encoded.subset(rows), device=device, batch_size=1)
    live, _ = predictor(model)
    scale = live.abs().amax().clamp(min=1.0)
    drift = float((live - logits[list(rows)]).abs().amax() / scale)
    if not drift <= TOLERANCE[precision]:
        raise TrialFailed(
            f"cached and live logits differ by {drift:.3g} of their size "
            f"(allowed {TOLERANCE[precision]:g} in {precision}); set its precision to fp32"
        )
    return drift
