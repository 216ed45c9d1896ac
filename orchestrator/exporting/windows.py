"""Windows over tokens in the form that ONNX Runtime runs fastest.

Letters: B rows, L tokens, d input width, F filters per kernel size k, S sum of the kernel sizes,
T = L - k + 1 windows, U distinct tokens of a batch.

A convolution is written as one matrix product and sums of shifted slices, because ONNX Runtime's
integer convolution is slower than the one in float while its integer matrix product is faster.
With V = 4,762, d = 300, kernels 2, 3, 4, F = 256 and batches of 256 rows of 14 to 23 tokens, one
core does 4,200 rows/s as a convolution (1,300 in int8), 6,200 as an int8 product, and 17,400 when
each distinct token of a batch is projected once.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainables.models._windows import WindowPool

# (slot, offset, T) -> [B, T, F]: what the tokens at an offset of T windows add to their scores.
_Terms = Callable[[int, int, int], Tensor]


class ExportedWindows(nn.Module):
    """A trained ``WindowPool`` with the same results, for rows at least as long as its kernels.

    Args:
        pool: Whose weights are taken over.
    """

    def __init__(self, pool: WindowPool) -> None:
        super().__init__()
        layers = [layer for layer in pool.convolutions if isinstance(layer, nn.Conv1d)]
        weights = [layer.weight.detach().permute(1, 2, 0) for layer in layers]  # each [d, k, F]
        self.kernels = pool.kernels
        self.filters = pool.filters
        self.weight = nn.Parameter(torch.cat([w.flatten(1) for w in weights], dim=1))  # [d, S * F]
        biases = [layer.bias.detach() for layer in layers if layer.bias is not None]
        self.bias = nn.Parameter(torch.stack(biases))

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        """Pool windows of contextual states [B, L, d] -> [B, K * F]."""
        return self._pool(self._slices(states, mask), mask)

    def of_table(self, table: nn.Embedding, tokens: Tensor, mask: Tensor) -> Tensor:
        """Pool windows of token vectors, ids [B, L] -> [B, K * F]."""
        distinct, places = torch.unique(tokens, return_inverse=True)
        places = places.view_as(tokens)  # ONNX's Unique returns them flat
        projected = table(distinct) @ self.weight  # [U, S * F]

        def terms(slot: int, offset: int, steps: int) -> Tensor:
            return F.embedding(places[:, offset : offset + steps], self._block(projected, slot))

        return self._pool(terms, mask)

    def sequence(self, states: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return windows in their order [B, T, K * F] and which lie inside their row [B, T]."""
        widest = max(self.kernels)
        steps = states.shape[1] - widest + 1
        scores = self._scores(self._slices(states, mask), [steps] * len(self.kernels))
        return F.relu(torch.cat(scores, dim=2)), _inside(steps, mask, widest)

    def _slices(self, states: Tensor, mask: Tensor) -> _Terms:
        projected = (states * mask.unsqueeze(-1).to(states.dtype)) @ self.weight  # [B, L, S * F]

        def terms(slot: int, offset: int, steps: int) -> Tensor:
            return self._block(projected, slot)[:, offset : offset + steps]

        return terms

    def _block(self, projected: Tensor, slot: int) -> Tensor:
        """Cut the F columns of one token place of one kernel out of [..., S * F]."""
        return projected[..., slot * self.filters : (slot + 1) * self.filters]

    def _scores(self, terms: _Terms, steps: list[int]) -> list[Tensor]:
        """Sum the projections of each window's tokens: [B, T, F] for each kernel size."""
        scores, slot = [], 0
        for kernel, bias, count in zip(self.kernels, self.bias, steps, strict=True):
            parts = [terms(slot + offset, offset, count) for offset in range(kernel)]
            scores.append(sum(parts[1:], start=parts[0]) + bias)
            slot += kernel
        return scores

    def _pool(self, terms: _Terms, mask: Tensor) -> Tensor:
        steps = [mask.shape[1] - kernel + 1 for kernel in self.kernels]
        pooled = []
        for kernel, count, scores in zip(
            self.kernels, steps, self._scores(terms, steps), strict=True
        ):
            outside = ~_inside(count, mask, kernel).unsqueeze(2)
            pooled.append(scores.masked_fill(outside, torch.finfo(scores.dtype).min).amax(dim=1))
        return F.relu(torch.cat(pooled, dim=1))


def replace_windows(model: nn.Module) -> int:
    """Replace every ``WindowPool`` inside ``model``; return the widest kernel, 1 without any."""
    widest = 1
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, WindowPool):
                widest = max(widest, *child.kernels)
                setattr(parent, name, ExportedWindows(child))
    return widest


def _inside(steps: int, mask: Tensor, kernel: int) -> Tensor:
    """Say which of the windows starting at 0 .. T - 1 lie inside their row: [B, T] bool."""
    last = (mask.sum(dim=1, keepdim=True) - kernel).clamp(min=0)
    return torch.arange(steps, device=mask.device) <= last
