"""TextCNN: embeddings, parallel convolutions, maximum over time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from trainables.models._embedding import PAD_ID, token_embedding
from trainables.models._output import ModelOutput, check_classes, check_dropout, classify
from trainables.models._windows import WindowPool


class TextCNN(nn.Module):
    """Convolutions of several widths over the tokens, each pooled by its maximum.

    With V = 4,762 characters, d = 300, kernels 2, 3, 4 with 256 filters each and C = 10 it has
    the seed paper's 2,128,258 parameters (METHODS 2.2).

    Args:
        n_classes: C.
        vocab_size: V.
        filters: Filters per window size.
        kernels: Window sizes in tokens.
        embedding_dim: d.
        embedding: [V, d] initial values; random without.
        freeze_embedding: Do not train the token table.
        dropout: Before the final layer.

    Source: Kim 2014, EMNLP, arXiv 1408.5882.
    """

    needs_checkpoint: ClassVar[bool] = False
    needs_tokenizer: ClassVar[str | bool] = False
    max_length: int | None = None
    pad_id = PAD_ID

    def __init__(
        self,
        n_classes: int,
        vocab_size: int,
        filters: int = 256,
        kernels: Sequence[int] = (2, 3, 4),
        embedding_dim: int = 300,
        embedding: Tensor | None = None,
        freeze_embedding: bool = False,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        check_classes(n_classes)
        check_dropout(dropout)
        self.n_classes = n_classes
        self.vocab_size = vocab_size
        self.filters = filters
        self.kernels = tuple(kernels)
        self.embedding_dim = embedding_dim
        self.freeze_embedding = freeze_embedding
        self.dropout = dropout
        self.table = token_embedding(vocab_size, embedding_dim, embedding, freeze_embedding)
        self.windows = WindowPool(embedding_dim, filters, self.kernels)
        self.n_features = self.windows.n_features
        self.classifier = nn.Linear(self.n_features, n_classes)

    def forward(self, input_ids: Tensor, mask: Tensor) -> ModelOutput:
        """Classify [B, L] token ids; features are the pooled windows after ReLU."""
        tokens = input_ids.masked_fill(~mask, PAD_ID)
        features = self.windows.of_table(self.table, tokens, mask)
        kept = F.dropout(features, self.dropout, self.training)
        return ModelOutput(classify(self.classifier, kept), features)

    def head(self) -> tuple[Tensor, Tensor]:
        """Return the final layer: weight [C, D], bias [C]."""
        return self.classifier.weight, self.classifier.bias


COMPONENT = TextCNN
