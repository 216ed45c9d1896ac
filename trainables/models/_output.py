"""What every model of the catalog is and returns.

Letters: B rows of a batch, L tokens of its longest row, C classes, D pooled features.
"""

from __future__ import annotations

from typing import ClassVar, NamedTuple, Protocol

import torch
from torch import Tensor, nn


class ModelOutput(NamedTuple):
    """What a forward pass returns.

    Attributes:
        logits: [B, C], float32 also under autocast.
        features: [B, D], what the final linear layer sees, before dropout.
    """

    logits: Tensor
    features: Tensor


class TextClassifier(Protocol):
    """The contract of a model; an ``nn.Module`` that also has these.

    Every constructor parameter that JSON can hold is kept as an attribute of the same name: that
    is how a saved model is built again (``trainables.models.save_model``'s architecture.json).

    Attributes:
        needs_checkpoint: Built from a pretrained encoder's folder rather than a vocabulary size.
        needs_tokenizer: ``"checkpoint"`` if it reads the ids of its checkpoint's own tokenizer.
        n_classes: C.
        n_features: D.
        max_length: Longest row it can read in tokens, None for any.
        pad_id: Token id of padding.
    """

    needs_checkpoint: ClassVar[bool]
    needs_tokenizer: ClassVar[str | bool]
    n_classes: int
    n_features: int
    max_length: int | None
    pad_id: int

    def forward(self, input_ids: Tensor, mask: Tensor) -> ModelOutput:
        """Classify rows padded on the right; how much padding there is changes nothing.

        Args:
            input_ids: [B, L] int64.
            mask: [B, L] bool, True where there is a token.
        """
        ...

    def head(self) -> tuple[Tensor, Tensor]:
        """Return the final linear layer: weight [C, D] and bias [C]."""
        ...


def classify(linear: nn.Linear, features: Tensor) -> Tensor:
    """Apply the final layer in float32 whatever autocast says: logits [B, C] are cached as such."""
    with torch.autocast(features.device.type, enabled=False):
        logits: Tensor = linear(features.float())
    return logits


def check_classes(n_classes: int) -> None:
    """Refuse a number of classes that is no classification."""
    if n_classes < 2:
        raise ValueError(f"n_classes must be at least 2, got {n_classes}")


def check_dropout(dropout: float) -> None:
    """Refuse a probability outside [0, 1)."""
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout must lie in [0, 1), got {dropout}")


def check_positive(**values: int) -> None:
    """Refuse sizes that are not whole numbers above zero."""
    for name, value in values.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ValueError(f"{name} must be a whole number above 0, got {value!r}")


def check_choice(name: str, value: str, allowed: tuple[str, ...]) -> None:
    """Refuse a value that is not one of ``allowed``."""
    if value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(allowed)}, got {value!r}")


def row_lengths(mask: Tensor) -> Tensor:
    """Count the tokens of each row: [B, L] bool -> [B] int64."""
    return mask.sum(dim=1)


def masked_mean(states: Tensor, mask: Tensor) -> Tensor:
    """Average [B, L, H] over the tokens of each row -> [B, H]; a row without any gives zeros."""
    weights = mask.unsqueeze(-1).to(states.dtype)
    return (states * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1)


def masked_max(states: Tensor, mask: Tensor) -> Tensor:
    """Take the maximum of [B, L, H] over the tokens of each row -> [B, H]; none gives zeros."""
    floor = torch.finfo(states.dtype).min
    peak = states.masked_fill(~mask.unsqueeze(-1), floor).amax(dim=1)
    return peak * mask.any(dim=1, keepdim=True).to(states.dtype)
