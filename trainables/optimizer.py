"""How weights are updated: the optimizer and the course of its learning rate."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

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


class Updates:
    """An optimizer with the course of its learning rate and the clipping of its gradients.

    Args:
        parameters: What is updated; their gradients are clipped together.
        spec: How.
        total: Steps of the whole training.
    """

    def __init__(self, parameters: list[nn.Parameter], spec: OptimizerSpec, total: int) -> None:
        self._parameters = parameters
        self._max_grad_norm = spec.max_grad_norm
        self._optimizer = build_optimizer(parameters, spec)
        self._scheduler = torch.optim.lr_scheduler.LambdaLR(
            self._optimizer, lambda step: linear_schedule(step, total, spec.warmup)
        )

    @property
    def steps(self) -> int:
        """How many steps have been made."""
        return int(self._scheduler.last_epoch)

    def clear(self) -> None:
        """Drop the gradients."""
        self._optimizer.zero_grad(set_to_none=True)

    def step(self) -> None:
        """Clip the gradients, update the parameters and move the learning rate on."""
        if self._max_grad_norm is not None:
            nn.utils.clip_grad_norm_(self._parameters, self._max_grad_norm)
        self._optimizer.step()
        self._scheduler.step()

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint must hold."""
        # LambdaLR's own state would pickle its function; the step count is all there is to it.
        return {"optimizer": self._optimizer.state_dict(), "steps": self.steps}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from what ``state_dict`` returned."""
        self._optimizer.load_state_dict(dict(state["optimizer"]))
        self._scheduler.last_epoch = state["steps"]
