"""A pretrained encoder under convolutions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from trainables.models import _encoder
from trainables.models._output import ModelOutput, check_classes, check_dropout, classify
from trainables.models._windows import WindowPool


class BertCNN(nn.Module):
    """Any transformers encoder with TextCNN's convolutions on its states.

    With the same kernels and filters its pooled features [B, K * F] have the shape and the range
    of a TextCNN student's, so that a hint needs no projection (METHODS 2.2, "isomorphic").

    Args:
        n_classes: C.
        checkpoint: Folder of the pretrained encoder.
        layers: Keep only that many of the lowest layers; all without.
        filters: Filters per window size.
        kernels: Window sizes in tokens.
        dropout: Before the final layer.
        pretrained: Load the checkpoint's weights, not only its configuration.

    Source: Du, Lv, Sun, CSA 13(8) 2023, doi 10.12677/csa.2023.138150 (our reading).
    """

    needs_checkpoint: ClassVar[bool] = True
    needs_tokenizer: ClassVar[str | bool] = "checkpoint"

    def __init__(
        self,
        n_classes: int,
        checkpoint: str,
        layers: int | None = None,
        filters: int = 256,
        kernels: Sequence[int] = (2, 3, 4),
        dropout: float = 0.1,
        pretrained: bool = True,
    ) -> None:
        super().__init__()
        check_classes(n_classes)
        check_dropout(dropout)
        self.n_classes = n_classes
        self.layers = layers
        self.filters = filters
        self.kernels = tuple(kernels)
        self.dropout = dropout
        self.encoder = _encoder.load_encoder(checkpoint, layers, pretrained)
        config = self.encoder.config
        self.pad_id = int(config.pad_token_id or 0)  # type: ignore[union-attr, arg-type]
        self.max_length = _encoder.longest_input(self.encoder)
        self.windows = WindowPool(int(config.hidden_size), filters, self.kernels)  # type: ignore[union-attr, arg-type]
        self.n_features = self.windows.n_features
        self.classifier = nn.Linear(self.n_features, n_classes)

    def forward(self, input_ids: Tensor, mask: Tensor) -> ModelOutput:
        """Classify [B, L] token ids; features are the pooled windows after ReLU."""
        _encoder.check_length(input_ids.shape[1], self.max_length)
        states = _encoder.encode(self.encoder, input_ids, mask, self.pad_id)
        features = self.windows(states, mask)
        kept = F.dropout(features, self.dropout, self.training)
        return ModelOutput(classify(self.classifier, kept), features)

    def head(self) -> tuple[Tensor, Tensor]:
        """Return the final layer: weight [C, D], bias [C]."""
        return self.classifier.weight, self.classifier.bias

    def freeze_lower(self, count: int) -> None:
        """Stop training the embeddings and the ``count`` lowest layers; 0 freezes nothing."""
        _encoder.freeze_lower(self.encoder, count)


COMPONENT = BertCNN
