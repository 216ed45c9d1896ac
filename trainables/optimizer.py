"""How weights are updated: the optimizer and the course of its learning rate."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn


@dataclass(frozen=True)
class OptimizerSpec:
    """How weights are updated: names and values as in the config.

    Attributes:
        name: ``adamw`` or ``sgd``.
        lr: Peak learning rate.
        weight_decay: Applied to matrices only; biases and norms are left alone.
        momentum: Of SGD.
        warmup: Share of all steps in which the rate rises linearly; it then falls linearly to 0.
        max_grad_norm: Clip the global gradient norm to this, or None.
    """

    name: str = "adamw"
    lr: float = 1e-3
    weight_decay: float = 0.01
    momentum: float = 0.9
    warmup: float = 0.05
    max_grad_norm: float | None = 1.0


def build_optimizer(parameters: list[nn.Parameter], spec: OptimizerSpec) -> torch.optim.Optimizer:
    """Make the optimizer, with weight decay on matrices only.

    Raises:
        ValueError: The name is neither ``adamw`` nor ``sgd``.
    """
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": spec.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if spec.name == "adamw":
        return torch.optim.AdamW(groups, lr=spec.lr, fused=True)
    if spec.name == "sgd":
        return torch.optim.SGD(groups, lr=spec.lr, momentum=spec.momentum, fused=True)
    raise ValueError(f"optimizer must be 'adamw' or 'sgd', got {spec.name!r}")


def linear_schedule(step: int, total: int, warmup: float) -> float:
    """Return the factor of the learning rate: linear up over ``warmup``, then linear to 0."""
    rising = warmup * total
    if step < rising:
        return (step + 1) / (rising + 1)
    return max(0.0, (total - step) / max(1.0, total - rising))
