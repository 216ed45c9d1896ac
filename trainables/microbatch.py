"""The backward pass of a batch, in pieces once the GPU's memory has run out.

Legend: B batch, C classes, D features.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from trainables.models._output import ModelOutput
from trainables.seeding import random_state, set_random_state

LossParts = Mapping[str, Tensor]
Forward = Callable[[Tensor], ModelOutput]
BatchLoss = Callable[[Tensor, ModelOutput], tuple[Tensor, LossParts]]


class BatchValue(NamedTuple):
    """What a batch cost: the detached total and its named parts."""

    total: Tensor
    parts: LossParts


class Backward:
    """Adds the gradients of one batch to the parameters.

    When memory runs out, the batch is cut in two, then in four, and so on; later batches start
    where this one ended. The pieces give the gradient of the whole batch, whatever the loss
    does with it: every piece runs forward without a graph, the loss of the joined outputs gives
    their gradients, and every piece runs again to carry its share of them to the parameters.
    Averaging the losses of pieces would be wrong: they hold different numbers of labelled rows,
    and some losses compare all examples with each other.

    Args:
        forward: Called with row indices ``[B]``, runs the model on them.
        loss: Called with row indices and their outputs, returns the scalar and its parts.

    Attributes:
        pieces: Into how many pieces a batch is cut.

    Source: Gao et al. 2021, RepL4NLP, arXiv 2101.06983, gradient cache, for any loss.
    """

    def __init__(self, forward: Forward, loss: BatchLoss) -> None:
        self.forward = forward
        self.loss = loss
        self.pieces = 1

    def __call__(self, index: Tensor, clear: Callable[[], None]) -> BatchValue:
        """Run the batch forward and backward.

        Args:
            index: Row indices ``[B]``.
            clear: Drops all gradients; called first.

        Raises:
            torch.OutOfMemoryError: A single row does not fit.
        """
        while True:
            clear()
            try:
                return self._whole(index) if self.pieces == 1 else self._in_pieces(index)
            except torch.OutOfMemoryError:
                if self.pieces >= len(index):
                    raise
            # Out here the failed attempt's tensors, which the exception held, are free.
            self.pieces *= 2
            if torch.cuda.is_available():
                torch.cuda.empty_cache()

    def _whole(self, index: Tensor) -> BatchValue:
        total, parts = self.loss(index, self.forward(index))
        total.backward()  # type: ignore[no-untyped-call]
        return BatchValue(total.detach(), parts)

    def _in_pieces(self, index: Tensor) -> BatchValue:
        chunks = index.tensor_split(min(self.pieces, len(index)))
        before = random_state()
        with torch.no_grad():
            outputs = [self.forward(chunk) for chunk in chunks]
        logits = torch.cat([output.logits for output in outputs]).requires_grad_()  # [B, C]
        features = torch.cat([output.features for output in outputs]).requires_grad_()  # [B, D]
        total, parts = self.loss(index, ModelOutput(logits, features))
        total.backward()  # type: ignore[no-untyped-call]
        # The second pass must drop what the first has dropped, or it belongs to other outputs.
        set_random_state(before)
        sizes = [len(chunk) for chunk in chunks]
        whole = [tensor for tensor in (logits.grad, features.grad) if tensor is not None]
        used = [logits.grad is not None, features.grad is not None]
        for chunk, *gradients in zip(
            chunks, *(torch.split(gradient, sizes) for gradient in whole), strict=True
        ):
            output = self.forward(chunk)
            tensors = [tensor for tensor, wanted in zip(output, used, strict=True) if wanted]
            torch.autograd.backward(tensors, gradients)
        return BatchValue(total.detach(), parts)
