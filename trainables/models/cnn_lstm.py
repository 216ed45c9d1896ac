"""Fusion of convolutions and an LSTM, one after the other or side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainables.models import _recurrent
from trainables.models._embedding import PAD_ID, token_embedding
from trainables.models._output import (
    ModelOutput,
    check_choice,
    check_classes,
    check_dropout,
    classify,
)
from trainables.models._windows import WindowPool


class CnnLstm(nn.Module):
    """Convolutions and a bidirectional LSTM in one student, side by side or in a row.

    ``parallel`` joins the pooled windows and the pooled LSTM states of the same tokens. ``serial``
    runs the LSTM over the windows in their order, after C-LSTM (Zhou et al. 2015, arXiv
    1511.08630), here in both directions and with several window sizes side by side.

    Args:
        n_classes: C.
        vocab_size: V.
        mode: ``parallel`` or ``serial``.
        filters: Filters per window size.
        kernels: Window sizes in tokens.
        hidden: LSTM units per direction.
        layers: Stacked LSTM layers.
        pooling: Of the LSTM states: ``max``, ``mean`` or ``last``.
        embedding_dim: d.
        embedding: [V, d] initial values; random without.
        freeze_embedding: Do not train the token table.
        dropout: Before the final layer.

    Source: our reading of Lin et al. 2024, IEEE Access 12, doi 10.1109/ACCESS.2024.3372568.
    """

    needs_checkpoint: ClassVar[bool] = False
    needs_tokenizer: ClassVar[str | bool] = False
    max_length: int | None = None
    pad_id = PAD_ID

    def __init__(
        self,
        n_classes: int,
        vocab_size: int,
        mode: str = "parallel",
        filters: int = 128,
        kernels: Sequence[int] = (2, 3, 4),
        hidden: int = 128,
        layers: int = 1,
        pooling: str = "max",
        embedding_dim: int = 300,
        embedding: Tensor | None = None,
        freeze_embedding: bool = False,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        check_classes(n_classes)
        check_dropout(dropout)
        check_choice("mode", mode, ("parallel", "serial"))
        check_choice("pooling", pooling, _recurrent.POOLINGS)
        self.n_classes = n_classes
        self.vocab_size = vocab_size
        self.mode = mode
        self.filters = filters
        self.kernels = tuple(kernels)
        self.hidden = hidden
        self.layers = layers
        self.pooling = pooling
        self.embedding_dim = embedding_dim
        self.freeze_embedding = freeze_embedding
        self.dropout = dropout
        self.table = token_embedding(vocab_size, embedding_dim, embedding, freeze_embedding)
        self.windows = WindowPool(embedding_dim, filters, self.kernels)
        serial = mode == "serial"
        width = self.windows.n_features if serial else embedding_dim
        self.recurrent = _recurrent.BiLSTM(width, hidden, layers)
        self.n_features = 2 * hidden + (0 if serial else self.windows.n_features)
        self.classifier = nn.Linear(self.n_features, n_classes)

    def forward(self, input_ids: Tensor, mask: Tensor) -> ModelOutput:
        """Classify [B, L] token ids; features are [B, 2 H], or [B, K * F + 2 H] in parallel."""
        tokens = input_ids.masked_fill(~mask, PAD_ID)
        features = self._serial(tokens, mask) if self.mode == "serial" else self._both(tokens, mask)
        kept = F.dropout(features, self.dropout, self.training)
        return ModelOutput(classify(self.classifier, kept), features)

    def head(self) -> tuple[Tensor, Tensor]:
        """Return the final layer: weight [C, D], bias [C]."""
        return self.classifier.weight, self.classifier.bias

    def _serial(self, tokens: Tensor, mask: Tensor) -> Tensor:
        scores, inside = self.windows.sequence(self.table(tokens), mask)
        states = self.recurrent(scores, inside)
        return self.recurrent.pool(states, inside, self.pooling)

    def _both(self, tokens: Tensor, mask: Tensor) -> Tensor:
        states = self.recurrent(self.table(tokens), mask)
        pooled = self.recurrent.pool(states, mask, self.pooling)
        return torch.cat([self.windows.of_table(self.table, tokens, mask), pooled], dim=1)


COMPONENT = CnnLstm
