"""Batches of similar length, as index tensors, and the gather that pads them.

Legend: N examples, B batch, L length.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from trainables.data._rows import Ints
from trainables.encoded import Encoded


class LengthBuckets:
    """Batches of an epoch: shuffled, but with examples of similar length side by side.

    The examples are shuffled, cut into pools of ``pool`` batches, sorted by length within each
    pool and cut into batches, whose order is then shuffled. Each example comes exactly once an
    epoch. Iterating draws from ``generator``: the same state gives the same epoch.

    Args:
        lengths: Length of each example, ``[N]``.
        batch_size: Examples in a batch; only one batch of an epoch may be smaller.
        generator: Source of the shuffling, on the CPU.
        pool: Batches that are sorted together; larger pools pad less and mix less.

    Raises:
        ValueError: ``batch_size`` or ``pool`` is below 1.
    """

    def __init__(
        self,
        lengths: Tensor | Ints,
        batch_size: int,
        generator: torch.Generator,
        pool: int = 50,
    ) -> None:
        if batch_size < 1 or pool < 1:
            raise ValueError(
                f"batch_size and pool must be at least 1, but got {batch_size=}, {pool=}"
            )
        self._lengths = torch.as_tensor(lengths, dtype=torch.int64)
        self._batch_size = batch_size
        self._generator = generator
        self._pool_size = pool * batch_size
        self._span = int(self._lengths.max()) + 1 if len(self._lengths) else 1

    def __len__(self) -> int:
        return -(-len(self._lengths) // self._batch_size)

    def __iter__(self) -> Iterator[Tensor]:
        n_rows = len(self._lengths)
        shuffled = torch.randperm(n_rows, generator=self._generator)
        pool = torch.arange(n_rows) // self._pool_size
        # One sort for all pools: the pool decides, then the length, then the shuffled order.
        rank = pool * self._span + self._lengths[shuffled]
        batches = torch.split(shuffled[torch.argsort(rank, stable=True)], self._batch_size)
        for number in torch.randperm(len(self), generator=self._generator).tolist():
            yield batches[number]


def sequential_batches(lengths: Tensor | Ints, batch_size: int) -> list[Tensor]:
    """Cut all examples into batches of similar length for evaluation, the longest first.

    Longest first, because a batch that does not fit into memory should fail at once.

    Args:
        lengths: Length of each example, ``[N]``.
        batch_size: Examples in a batch.

    Returns:
        Index tensors; write results back with ``results[index] = batch_results``.
    """
    if not len(lengths):
        return []
    order = torch.argsort(torch.as_tensor(lengths), descending=True, stable=True)
    return list(torch.split(order, batch_size))


def gather(
    encoded: Encoded, index: Tensor, pad_id: int | None = None, pad_to_multiple: int = 1
) -> tuple[Tensor, Tensor]:
    """Return ``input_ids`` int64 ``[B, L]`` and ``mask`` bool ``[B, L]`` of some examples.

    L is the length of the longest of them, not of the split.

    Args:
        encoded: The split.
        index: Which examples, int64 ``[B]``.
        pad_id: What to pad with; None takes the tokenizer's own.
        pad_to_multiple: Round L up to a multiple of this; 8 suits tensor cores.
    """
    lengths = encoded.lengths[index]  # [B]
    longest = int(lengths.max())
    longest += -longest % pad_to_multiple
    position = torch.arange(longest)  # [L]
    mask = position < lengths[:, None]  # [B, L]
    # Padding reads some token of the split, which is then overwritten.
    where = (encoded.starts[index, None] + position).clamp_(max=len(encoded.tokens) - 1)
    padding = encoded.pad_id if pad_id is None else pad_id
    return encoded.tokens[where].long().masked_fill_(~mask, padding), mask
