"""Convolution over token windows and the maximum over them, as in TextCNN and BERT-CNN.

Letters: B rows, L tokens, d input width, K kernel sizes, k one of them, F filters per kernel size,
T = L - k + 1 windows, U distinct tokens of a batch, S = sum of the kernel sizes.

Only windows inside a row count, so the amount of padding changes nothing. A row shorter than a
kernel has one window, filled up with zeros.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainables.models._output import check_positive


class WindowPool(nn.Module):
    """ReLU of the maximum over windows: [B, L, d] -> [B, K * F]."""

    def __init__(self, dim: int, filters: int, kernels: Sequence[int]) -> None:
        super().__init__()
        check_positive(filters=filters)
        if not kernels:
            raise ValueError("kernels must name at least one window size, got none")
        for kernel in kernels:
            check_positive(kernels=kernel)
        self.kernels = tuple(kernels)
        self.filters = filters
        self.n_features = filters * len(self.kernels)
        self.convolutions = nn.ModuleList(nn.Conv1d(dim, filters, k) for k in self.kernels)

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        """Pool windows of contextual states.

        Args:
            states: [B, L, d].
            mask: [B, L] bool.
        """
        channels = self._channels(states, mask)
        pooled = []
        for kernel, convolution in zip(self.kernels, self._layers(), strict=True):
            scores = convolution(channels)  # [B, F, T]
            outside = ~_inside(scores.shape[2], mask, kernel).unsqueeze(1)
            pooled.append(scores.masked_fill(outside, torch.finfo(scores.dtype).min).amax(dim=2))
        return F.relu(torch.cat(pooled, dim=1)).float()

    def sequence(self, states: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return the windows in their order instead of their maximum.

        All kernel sizes are cut to the windows of the widest, so that they can be joined.

        Args:
            states: [B, L, d].
            mask: [B, L] bool.

        Returns:
            Windows after ReLU [B, T, K * F] and which of them lie inside their row [B, T].
        """
        widest = max(self.kernels)
        channels = self._channels(states, mask)
        steps = channels.shape[2] - widest + 1
        scores = torch.cat([layer(channels)[..., :steps] for layer in self._layers()], dim=1)
        return F.relu(scores).transpose(1, 2), _inside(steps, mask, widest)

    def of_table(self, table: nn.Embedding, tokens: Tensor, mask: Tensor) -> Tensor:
        """Pool windows of token vectors: [B, L] ids, padded with the zero row's id, -> [B, K * F].

        A GPU would have to wait for the number of distinct tokens, and an exported graph must not
        depend on it: there, the plain convolution runs. The two agree to rounding (tested).
        """
        exported = torch.onnx.is_in_onnx_export() or torch.compiler.is_compiling()
        if tokens.device.type != "cpu" or exported:
            return self(table(tokens), mask)  # type: ignore[no-any-return]
        short = max(self.kernels) - tokens.shape[1]
        if short > 0:
            assert table.padding_idx is not None
            tokens, mask = (
                F.pad(tokens, (0, short), value=table.padding_idx),
                F.pad(mask, (0, short)),
            )
        distinct, places = torch.unique(tokens, return_inverse=True)
        return self.over_tokens(table(distinct), places, mask)

    def over_tokens(self, rows: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
        """Pool windows of context-free vectors, projecting each distinct token only once.

        The score of a window is the sum of its tokens' projections, so the same numbers as
        ``forward(rows[tokens], mask)`` come out of matrices that are B * L / U times smaller, and
        padding costs nothing. One CPU core, B = 128, L = 20, V = 10,000: 0.5 times the time of a
        bfloat16 convolution step; see tests/benchmarks/bench_textcnn.py.

        Args:
            rows: [U, d] vectors of the distinct tokens.
            tokens: [B, L] indices into ``rows``, L at least the widest kernel; padding must point
                at a zero vector.
            mask: [B, L] bool.
        """
        dim = rows.shape[1]
        weight = torch.cat([c.weight.permute(2, 0, 1).reshape(-1, dim) for c in self._layers()])
        bias = torch.cat([c.bias for c in self._layers() if c.bias is not None])
        projected = F.linear(rows, weight)  # [U, S * F]
        windows = _window_tokens(tokens, mask.sum(dim=1), self.kernels)
        peak: Tensor = _SumAndMax.apply(  # type: ignore[no-untyped-call]
            projected, self.filters, self.kernels, *windows
        )
        return F.relu(peak + bias)

    def _channels(self, states: Tensor, mask: Tensor) -> Tensor:
        """Clear padding and bring [B, L, d] to [B, d, L], L at least the widest kernel."""
        states = states * mask.unsqueeze(-1).to(states.dtype)
        short = max(max(self.kernels) - states.shape[1], 0)
        return F.pad(states.transpose(1, 2), (0, short))

    def _layers(self) -> list[nn.Conv1d]:
        return [layer for layer in self.convolutions if isinstance(layer, nn.Conv1d)]


def _inside(steps: int, mask: Tensor, kernel: int) -> Tensor:
    """Say which of the windows starting at 0 .. T - 1 lie inside their row: [B, T] bool."""
    last = (mask.sum(dim=1, keepdim=True) - kernel).clamp(min=0)
    return torch.arange(steps, device=mask.device) <= last


def _window_tokens(tokens: Tensor, lengths: Tensor, kernels: Sequence[int]) -> list[Tensor]:
    """List the tokens of every window, [B, T, k] for each k.

    Windows that would run over the end repeat the last one inside: that leaves the maximum as it
    is and is cheaper than masking the scores.
    """
    windows = []
    for kernel in kernels:
        last = (lengths - kernel).clamp(min=0)
        starts = torch.arange(tokens.shape[1] - kernel + 1, device=tokens.device)
        starts = torch.minimum(starts, last.unsqueeze(1))  # [B, T]
        places = starts.unsqueeze(2) + torch.arange(kernel, device=tokens.device)
        windows.append(tokens.gather(1, places.flatten(1)).view(places.shape))
    return windows


class _SumAndMax(torch.autograd.Function):
    """Sum the projections of each window's tokens and keep the largest sum per filter.

    The gradient of a maximum touches one window per row and filter, so the backward pass scatters
    B * S * F numbers instead of going through all windows.
    """

    @staticmethod
    def forward(
        ctx: Any, projected: Tensor, filters: int, kernels: tuple[int, ...], *windows: Tensor
    ) -> Tensor:
        """Reduce [U, S * F] to [B, K * F]; ``windows`` as ``_window_tokens`` gives them."""
        slots = sum(kernels)
        table = projected.view(-1, filters)  # [U * S, F]
        peaks, saved, first = [], [], 0
        for kernel, tokens in zip(kernels, windows, strict=True):
            own = torch.arange(first, first + kernel, device=tokens.device)
            index = tokens * slots + own  # [B, T, k] rows of the table
            sums = F.embedding_bag(index.flatten(0, 1), table, mode="sum")
            sums = sums.view(*index.shape[:2], filters)
            peak = sums.amax(dim=1)
            peaks.append(peak)
            if ctx.needs_input_grad[0]:
                saved += [index, _first_maximum(sums, peak)]
            first += kernel
        ctx.save_for_backward(*saved)
        ctx.shape = projected.shape
        ctx.filters = filters
        return torch.cat(peaks, dim=1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Scatter [B, K * F] back to [U, S * F], in float32: bfloat16 would lose small terms."""
        (gradient,) = gradients
        wide = torch.promote_types(gradient.dtype, torch.float32)
        result = torch.zeros(ctx.shape.numel(), dtype=wide, device=gradient.device)
        columns = torch.arange(ctx.filters, device=gradient.device).unsqueeze(1)
        saved = ctx.saved_tensors
        parts = torch.split(gradient.to(wide), ctx.filters, dim=1)
        for part, index, best in zip(parts, saved[::2], saved[1::2], strict=True):
            kernel = index.shape[2]
            rows = index.gather(1, best.unsqueeze(2).expand(-1, -1, kernel))  # [B, F, k]
            places = rows * ctx.filters + columns
            values = part.unsqueeze(2).expand(-1, -1, kernel)
            result.scatter_add_(0, places.flatten(), values.flatten())
        return (
            result.view(ctx.shape).to(gradient.dtype),
            None,
            None,
            *([None] * (len(saved) // 2)),
        )


def _first_maximum(sums: Tensor, peak: Tensor) -> Tensor:
    """Find where [B, T, F] first reaches its maximum over T -> [B, F] int64.

    ``Tensor.max(dim)`` finds it too, but is not vectorised along this axis and three times slower.
    """
    steps = sums.shape[1]
    countdown = torch.arange(steps, 0, -1, dtype=torch.int16, device=sums.device)
    hits = sums.eq(peak.unsqueeze(1)) * countdown.view(1, -1, 1)
    # NaN equals nothing: clamp, so that the trainer reports it and not an index error.
    return (steps - hits.amax(dim=1).to(torch.int64)).clamp(max=steps - 1)
