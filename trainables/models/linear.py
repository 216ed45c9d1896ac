"""A bag of embeddings under a linear layer."""

from __future__ import annotations

from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from trainables.models._embedding import PAD_ID, token_embedding
from trainables.models._output import (
    ModelOutput,
    check_choice,
    check_classes,
    check_dropout,
    check_positive,
    classify,
    masked_max,
    masked_mean,
)


class Linear(nn.Module):
    """Mean or maximum of the token vectors and one linear layer: the latency floor.

    As in fastText, without its n-grams.

    Args:
        n_classes: C.
        vocab_size: V.
        embedding_dim: d.
        pooling: ``mean`` or ``max`` over the row.
        hidden: Width of a ReLU layer in between; none without.
        embedding: [V, d] initial values; random without.
        freeze_embedding: Do not train the token table.
        dropout: Before the final layer.

    Source: Joulin et al. 2017, EACL, arXiv 1607.01759.
    """

    needs_checkpoint: ClassVar[bool] = False
    needs_tokenizer: ClassVar[str | bool] = False
    max_length: int | None = None
    pad_id = PAD_ID

    def __init__(
        self,
        n_classes: int,
        vocab_size: int,
        embedding_dim: int = 300,
        pooling: str = "mean",
        hidden: int | None = None,
        embedding: Tensor | None = None,
        freeze_embedding: bool = False,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        check_classes(n_classes)
        check_dropout(dropout)
        check_choice("pooling", pooling, ("mean", "max"))
        self.n_classes = n_classes
        self.vocab_size = vocab_size
        self.embedding_dim = embedding_dim
        self.pooling = pooling
        self.hidden = hidden
        self.freeze_embedding = freeze_embedding
        self.dropout = dropout
        self.table = token_embedding(vocab_size, embedding_dim, embedding, freeze_embedding)
        self.between: nn.Linear | None = None
        if hidden is not None:
            check_positive(hidden=hidden)
            self.between = nn.Linear(embedding_dim, hidden)
        self.n_features = hidden or embedding_dim
        self.classifier = nn.Linear(self.n_features, n_classes)

    def forward(self, input_ids: Tensor, mask: Tensor) -> ModelOutput:
        """Classify [B, L] token ids; features are the pooled vectors, after the hidden layer."""
        vectors = self.table(input_ids)
        pooled = (masked_mean if self.pooling == "mean" else masked_max)(vectors, mask)
        features = pooled if self.between is None else F.relu(self.between(pooled)).float()
        kept = F.dropout(features, self.dropout, self.training)
        return ModelOutput(classify(self.classifier, kept), features)

    def head(self) -> tuple[Tensor, Tensor]:
        """Return the final layer: weight [C, D], bias [C]."""
        return self.classifier.weight, self.classifier.bias


COMPONENT = Linear
