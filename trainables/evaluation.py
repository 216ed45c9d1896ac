"""Forward passes over a whole split.

Legend: N examples, C classes, D features, B batch, L length.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor, nn

from trainables.batching import gather, sequential_batches
from trainables.encoded import Encoded
from trainables.store import Store

EVALUATION_BATCH = 128


@lru_cache(maxsize=32)
def _open(path: Path, stamp: int) -> Encoded:
    return Encoded.open(path)


def open_encoded(store: Store, key: str) -> Encoded:
    """Open an encoded split; an actor keeps it for its next trial."""
    path = store.read("encoded", key).path
    return _open(path, path.stat().st_mtime_ns)


class Predictor:
    """Run models over one split; the padded batches are made once and kept.

    Args:
        encoded: The split.
        device: Where the model is.
        batch_size: Rows in each forward pass.

    Attributes:
        ids: Example ids ``[N]``.
        targets: Classes ``[N]``, -100 where there is no label.
    """

    def __init__(
        self,
        encoded: Encoded,
        *,
        device: torch.device,
        batch_size: int = EVALUATION_BATCH,
    ) -> None:
        self.ids = encoded.ids
        self.targets = encoded.labels
        self.device = device
        self._encoded = encoded
        self._cut(batch_size)

    @torch.no_grad()
    def __call__(self, model: nn.Module, *, features: bool = False) -> tuple[Tensor, Tensor | None]:
        """Return logits ``[N, C]`` float32 and, if asked for, features ``[N, D]``, on the CPU.

        Puts the model into evaluation mode: teacher dropout left on would make cached and live
        outputs differ. When memory runs out, it goes on with batches of half the size.

        Raises:
            torch.OutOfMemoryError: A single row does not fit.
        """
        model.eval()
        while True:
            try:
                return self._predict(model, features)
            except torch.OutOfMemoryError:
                if self._batch_size == 1:
                    raise
            self._cut(self._batch_size // 2)

    def _cut(self, batch_size: int) -> None:
        self._batch_size = batch_size
        self._batches = [
            (index, *gather(self._encoded, index))
            for index in sequential_batches(self._encoded.lengths, batch_size)
        ]

    def _predict(self, model: nn.Module, features: bool) -> tuple[Tensor, Tensor | None]:
        logits: Tensor | None = None
        pooled: Tensor | None = None
        for index, input_ids, mask in self._batches:
            output = model(input_ids.to(self.device), mask.to(self.device))
            batch_logits = output.logits.float().cpu()
            if logits is None:
                logits = torch.empty(len(self.ids), batch_logits.shape[1])
            logits[index] = batch_logits
            if features:
                batch_features = output.features.float().cpu()
                if pooled is None:
                    pooled = torch.empty(len(self.ids), batch_features.shape[1])
                pooled[index] = batch_features
        assert logits is not None, "an encoded split is never empty"
        return logits, pooled
