"""Numerically safe pieces of the losses and weightings.

Shapes: ``B`` examples, ``C`` classes; class axes are last, so leading axes may be more. All
results are in log space unless the name says otherwise, and in float32 or better: under autocast
and with half-precision caches the probabilities of a saturated teacher would underflow.
"""

from __future__ import annotations

import torch
from torch import Tensor


def upcast(tensor: Tensor) -> Tensor:
    """Return ``tensor`` in float32, or as it is if it is wider."""
    return tensor.float() if tensor.dtype in {torch.float16, torch.bfloat16} else tensor


def log_probabilities(logits: Tensor, temperature: float = 1.0) -> Tensor:
    """Return log softmax of ``logits / temperature`` over the last axis."""
    return torch.log_softmax(upcast(logits) / temperature, dim=-1)


def kl_divergence(teacher_log_p: Tensor, student_log_p: Tensor) -> Tensor:
    """Return ``KL(teacher || student)`` over the last axis from log-probabilities."""
    return (teacher_log_p.exp() * (teacher_log_p - student_log_p)).sum(dim=-1)


def soft_cross_entropy(teacher_log_p: Tensor, student_log_p: Tensor) -> Tensor:
    """Return ``-sum p_teacher log p_student`` over the last axis from log-probabilities."""
    return -(teacher_log_p.exp() * student_log_p).sum(dim=-1)


def pick(values: Tensor, index: Tensor) -> Tensor:
    """Return ``values[b, index[b]]`` ``[B]`` of ``[B, C]``."""
    return values.gather(-1, index.unsqueeze(-1)).squeeze(-1)


def drop(values: Tensor, index: Tensor) -> Tensor:
    """Return ``values [B, C]`` without column ``index[b]`` of each row: ``[B, C - 1]``.

    Dropping the entry is exact where masking it with a large negative number overflows in half
    precision and, with minus infinity, turns ``0 * log 0`` into NaN.
    """
    columns = torch.arange(values.shape[-1] - 1, device=values.device)
    kept = columns + (columns >= index.unsqueeze(-1)).long()
    return values.gather(-1, kept)


def binary_log_probabilities(log_p: Tensor, index: Tensor) -> Tensor:
    """Return ``[log p_i, log(1 - p_i)]`` ``[B, 2]`` for the class ``i = index[b]`` of each row.

    The complement is summed in log space over the other classes: ``log(1 - exp(log p_i))`` is
    minus infinity as soon as ``p_i`` rounds to one.
    """
    rest = torch.logsumexp(drop(log_p, index), dim=-1)
    return torch.stack([pick(log_p, index), rest], dim=-1)
