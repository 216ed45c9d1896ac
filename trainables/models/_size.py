"""How big models are: parameters, and bytes of the weights that inference needs."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor, nn


def parameter_counts(*models: nn.Module) -> tuple[int, int]:
    """Count all parameters and the trainable ones.

    A table that several models share (or one model uses twice) counts once.
    """
    total = trainable = 0
    for parameter in _distinct(value for model in models for value in model.parameters()):
        total += parameter.numel()
        trainable += parameter.numel() if parameter.requires_grad else 0
    return total, trainable


def model_bytes(*models: nn.Module) -> int:
    """Sum the bytes of all weights and saved buffers; optimizer state is no part of a model."""
    tensors = _distinct(
        value for model in models for value in model.state_dict(keep_vars=True).values()
    )
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _distinct(tensors: Iterator[Tensor]) -> Iterator[Tensor]:
    seen: set[tuple[int, int]] = set()
    for tensor in tensors:
        place = (tensor.data_ptr(), tensor.numel())
        if place not in seen:
            seen.add(place)
            yield tensor
