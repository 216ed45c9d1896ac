"""A pretrained encoder with a linear classifier."""

from __future__ import annotations

from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from trainables.models import _encoder
from trainables.models._output import (
    ModelOutput,
    check_choice,
    check_classes,
    check_dropout,
    classify,
    masked_mean,
)


class Bert(nn.Module):
    """Any transformers encoder with a linear head on its pooled output.

    BERT and its family; no pooler layer, so that the features are the encoder's own states.

    Args:
        n_classes: C.
        checkpoint: Folder of the pretrained encoder.
        layers: Keep only that many of the lowest layers; all without.
        pooling: ``cls`` takes the state of the first token, ``mean`` averages over the row.
        dropout: Before the final layer.
        pretrained: Load the checkpoint's weights, not only its configuration.

    Source: Devlin et al. 2019, NAACL, arXiv 1810.04805.
    """

    needs_checkpoint: ClassVar[bool] = True
    needs_tokenizer: ClassVar[str | bool] = "checkpoint"

    def __init__(
        self,
        n_classes: int,
        checkpoint: str,
        layers: int | None = None,
        pooling: str = "cls",
        dropout: float = 0.1,
        pretrained: bool = True,
    ) -> None:
        super().__init__()
        check_classes(n_classes)
        check_dropout(dropout)
        check_choice("pooling", pooling, ("cls", "mean"))
        self.n_classes = n_classes
        self.layers = layers
        self.pooling = pooling
        self.dropout = dropout
        self.encoder = _encoder.load_encoder(checkpoint, layers, pretrained)
        config = self.encoder.config
        self.pad_id = int(config.pad_token_id or 0)  # type: ignore[union-attr, arg-type]
        self.n_features = int(config.hidden_size)  # type: ignore[union-attr, arg-type]
        self.max_length = _encoder.longest_input(self.encoder)
        self.classifier = nn.Linear(self.n_features, n_classes)

    def forward(self, input_ids: Tensor, mask: Tensor) -> ModelOutput:
        """Classify [B, L] token ids; features are the pooled states [B, H]."""
        _encoder.check_length(input_ids.shape[1], self.max_length)
        states = _encoder.encode(self.encoder, input_ids, mask, self.pad_id).float()
        features = states[:, 0] if self.pooling == "cls" else masked_mean(states, mask)
        kept = F.dropout(features, self.dropout, self.training)
        return ModelOutput(classify(self.classifier, kept), features)

    def head(self) -> tuple[Tensor, Tensor]:
        """Return the final layer: weight [C, D], bias [C]."""
        return self.classifier.weight, self.classifier.bias

    def freeze_lower(self, count: int) -> None:
        """Stop training the embeddings and the ``count`` lowest layers; 0 freezes nothing."""
        _encoder.freeze_lower(self.encoder, count)


COMPONENT = Bert
