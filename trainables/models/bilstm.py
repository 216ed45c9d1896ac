"""A bidirectional LSTM under a linear layer."""

from __future__ import annotations

from typing import ClassVar

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


class BiLSTM(nn.Module):
    """Bidirectional LSTM over the tokens, pooled over the row.

    Args:
        n_classes: C.
        vocab_size: V.
        hidden: Units per direction.
        layers: Stacked layers.
        pooling: ``max`` or ``mean`` over the row, or the ``last`` state of each direction.
        embedding_dim: d.
        embedding: [V, d] initial values; random without.
        freeze_embedding: Do not train the token table.
        dropout: Before the final layer.

    Source: Tang et al. 2019, arXiv 1903.12136.
    """

    needs_checkpoint: ClassVar[bool] = False
    needs_tokenizer: ClassVar[str | bool] = False
    max_length: int | None = None
    pad_id = PAD_ID

    def __init__(
        self,
        n_classes: int,
        vocab_size: int,
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
        check_choice("pooling", pooling, _recurrent.POOLINGS)
        self.n_classes = n_classes
        self.vocab_size = vocab_size
        self.hidden = hidden
        self.layers = layers
        self.pooling = pooling
        self.embedding_dim = embedding_dim
        self.freeze_embedding = freeze_embedding
        self.dropout = dropout
        self.table = token_embedding(vocab_size, embedding_dim, embedding, freeze_embedding)
        self.recurrent = _recurrent.BiLSTM(embedding_dim, hidden, layers)
        self.n_features = 2 * hidden
        self.classifier = nn.Linear(self.n_features, n_classes)

    def forward(self, input_ids: Tensor, mask: Tensor) -> ModelOutput:
        """Classify [B, L] token ids; features are the pooled states [B, 2 H]."""
        states = self.recurrent(self.table(input_ids), mask)
        features = self.recurrent.pool(states, mask, self.pooling)
        kept = F.dropout(features, self.dropout, self.training)
        return ModelOutput(classify(self.classifier, kept), features)

    def head(self) -> tuple[Tensor, Tensor]:
        """Return the final layer: weight [C, D], bias [C]."""
        return self.classifier.weight, self.classifier.bias


COMPONENT = BiLSTM
