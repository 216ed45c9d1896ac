"""Student-side projections and weighted distances, shared by the hints.

Letters: ``K`` teachers, ``B`` examples, ``D_k`` features of teacher ``k``. Only the student is
projected: a trainable map on the teacher's side could shrink both to zero.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from trainables.device import autocast
from trainables.losses._math import upcast


def linear_where_needed(student_dim: int, teacher_dims: Sequence[int]) -> nn.ModuleList:
    """Return one map per teacher: a linear layer, or nothing where the widths agree."""
    return nn.ModuleList(
        nn.Identity() if width == student_dim else nn.Linear(student_dim, width)
        for width in teacher_dims
    )


def project(
    projections: nn.ModuleList,
    student: Tensor,
    teachers: Sequence[Tensor],
    precision: Literal["fp32", "bf16"] = "fp32",
) -> list[Tensor]:
    """Return the student's features ``[B, D_k]`` for each teacher, in float32 or wider.

    Args:
        projections: One map per teacher.
        student: Its features ``[B, D]``.
        teachers: Theirs, ``[B, D_k]``, which the results must match in shape.
        precision: Of the maps; in float32 three wide ones cost half as much as a TextCNN's step.

    Raises:
        ValueError: The hint was set up for another number of teachers, or widths differ.
    """
    if len(projections) != len(teachers):
        raise ValueError(
            f"the hint was set up for {len(projections)} teachers, but got features of "
            f"{len(teachers)}; call setup with the width of each teacher first"
        )
    student = upcast(student)
    with autocast(precision, student.device):
        projected = [upcast(layer(student)) for layer in projections]
    for mine, theirs in zip(projected, teachers, strict=True):
        if mine.shape != theirs.shape:
            raise ValueError(
                f"the hint compares features of shape {list(mine.shape)} with a teacher's "
                f"{list(theirs.shape)}; setup was called with another width"
            )
    return projected


def weighted_distance(
    distance: Callable[[Tensor, Tensor], Tensor],
    students: Sequence[Tensor],
    teachers: Sequence[Tensor],
    weights: Tensor,
) -> Tensor:
    """Return ``sum_k w[k, b] distance_k[b]`` ``[B]``; no gradient to teachers or weights."""
    each = [
        distance(mine, upcast(theirs.detach()))
        for mine, theirs in zip(students, teachers, strict=True)
    ]
    return (weights.detach() * torch.stack(each)).sum(dim=0)
