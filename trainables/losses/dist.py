"""Distillation by correlation."""

from __future__ import annotations

import torch
from torch import Tensor

from trainables.losses._check import number
from trainables.losses._math import upcast
from trainables.protocols import Loss

# As in the reference code; it bounds the value where a row or column is constant.
_EPSILON = 1e-8


class DIST(Loss):
    """One minus the correlation of student and teacher, within examples and within classes.

    ``T^2 (beta inter + gamma intra)``: inter is one minus the mean Pearson correlation of the
    rows ``p[b, :]``, intra that of the columns ``p[:, c]``. A batch-level loss: intra depends on
    who is in the batch, so keep 16 examples or more. On two classes inter has no gradient.

    Args:
        temperature: The method's tau; above 0.
        beta: Coefficient of the correlation within examples; at least 0.
        gamma: Coefficient of the correlation within classes; at least 0.

    Source: Huang et al. 2022, NeurIPS, arXiv 2205.10536;
        hunto/image_classification_sota@6f7a70a1dd.
    """

    per_sample = False
    min_classes = 3

    def __init__(self, *, temperature: float = 1.0, beta: float = 1.0, gamma: float = 1.0) -> None:
        self.temperature = number("temperature", temperature, above=0)
        self.beta = number("beta", beta, least=0)
        self.gamma = number("gamma", gamma, least=0)

    def __call__(self, student_logits: Tensor, teacher_logits: Tensor, targets: Tensor) -> Tensor:
        """Return the scalar loss of logits ``[B, C]``; labels are not used."""
        student = torch.softmax(upcast(student_logits) / self.temperature, dim=-1)
        teacher = torch.softmax(upcast(teacher_logits.detach()) / self.temperature, dim=-1)
        inter = 1.0 - _pearson(student, teacher, dim=1).mean()
        intra = 1.0 - _pearson(student, teacher, dim=0).mean()
        return self.temperature**2 * (self.beta * inter + self.gamma * intra)


def _pearson(first: Tensor, second: Tensor, *, dim: int) -> Tensor:
    """Return the correlation along ``dim``; 0 where one side is constant."""
    first = first - first.mean(dim=dim, keepdim=True)
    second = second - second.mean(dim=dim, keepdim=True)
    norm = torch.linalg.vector_norm
    scale: Tensor = norm(first, dim=dim) * norm(second, dim=dim) + _EPSILON
    return (first * second).sum(dim=dim) / scale


COMPONENT = DIST
