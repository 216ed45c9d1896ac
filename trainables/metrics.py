"""Classification metrics from logits.

Legend: N examples, C classes.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def confusion_matrix(predictions: Tensor, targets: Tensor, n_classes: int) -> Tensor:
    """Count pairs: entry ``[target, prediction]`` of shape ``[C, C]``, int64.

    Args:
        predictions: Predicted class of each example, ``[N]``.
        targets: True class of each example, ``[N]``.
        n_classes: C.
    """
    pairs = targets.long() * n_classes + predictions.long()
    return torch.bincount(pairs, minlength=n_classes * n_classes).reshape(n_classes, n_classes)


def f1_scores(confusion: Tensor) -> dict[str, float]:
    """Return macro, micro and weighted F1 of a ``[C, C]`` confusion matrix.

    Macro averages over the classes that occur among targets or predictions, as scikit-learn
    does without ``labels``; a class that is never predicted scores 0.
    """
    counts = confusion.double()
    hits, support, predicted = counts.diag(), counts.sum(1), counts.sum(0)
    present = (support + predicted) > 0
    scores = torch.where(present, 2 * hits / (support + predicted).clamp(min=1), 0.0)
    total = counts.sum().clamp(min=1)
    return {
        "f1_macro": float(scores[present].mean()) if present.any() else 0.0,
        "f1_micro": float(hits.sum() / total),
        "f1_weighted": float((scores * support).sum() / total),
    }


def classification_metrics(logits: Tensor, targets: Tensor, prefix: str = "") -> dict[str, float]:
    """Return loss, accuracy and the three F1 scores of one split.

    Args:
        logits: Unnormalised scores ``[N, C]``.
        targets: True classes ``[N]``, all of them labelled.
        prefix: Put before each name, e.g. ``"val_"``.
    """
    confusion = confusion_matrix(logits.argmax(1), targets, logits.shape[1])
    metrics = {
        "loss": float(functional.cross_entropy(logits.float(), targets)),
        "accuracy": float(confusion.diag().sum() / confusion.sum().clamp(min=1)),
        **f1_scores(confusion),
    }
    return {prefix + name: value for name, value in metrics.items()}
