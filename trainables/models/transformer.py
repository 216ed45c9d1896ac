"""A small transformer encoder trained from scratch."""

from __future__ import annotations

from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from trainables.models._embedding import PAD_ID, token_embedding
from trainables.models._encoder import check_length
from trainables.models._output import (
    ModelOutput,
    check_classes,
    check_dropout,
    check_positive,
    classify,
    masked_mean,
)

_STD = 0.02  # as in BERT, for tokens and positions alike


class Transformer(nn.Module):
    """Transformer encoder from scratch, normalised before each part.

    Learned positions and mean pooling. Norms come first because the small ones then train from
    scratch without a warm-up of their own.

    Args:
        n_classes: C.
        vocab_size: V.
        layers: Blocks.
        hidden: H, width of the states.
        heads: Attention heads; must divide ``hidden``.
        ffn: Width inside a block.
        max_positions: Longest row in tokens.
        embedding_dim: Width of the token table; projected to ``hidden`` where it differs.
        embedding: [V, d] initial values; random without.
        freeze_embedding: Do not train the token table.
        dropout: In the blocks and before the final layer.

    Source: Vaswani et al. 2017, NeurIPS, arXiv 1706.03762.
    """

    needs_checkpoint: ClassVar[bool] = False
    needs_tokenizer: ClassVar[str | bool] = False
    pad_id = PAD_ID

    def __init__(
        self,
        n_classes: int,
        vocab_size: int,
        layers: int = 2,
        hidden: int = 128,
        heads: int = 4,
        ffn: int = 512,
        max_positions: int = 512,
        embedding_dim: int | None = None,
        embedding: Tensor | None = None,
        freeze_embedding: bool = False,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        check_classes(n_classes)
        check_dropout(dropout)
        check_positive(
            layers=layers, hidden=hidden, heads=heads, ffn=ffn, max_positions=max_positions
        )
        if hidden % heads:
            raise ValueError(f"heads must divide hidden, got heads={heads} and hidden={hidden}")
        self.n_classes = n_classes
        self.vocab_size = vocab_size
        self.layers = layers
        self.hidden = hidden
        self.heads = heads
        self.ffn = ffn
        self.max_positions = max_positions
        self.embedding_dim = embedding_dim or hidden
        self.freeze_embedding = freeze_embedding
        self.dropout = dropout
        self.max_length: int | None = max_positions
        self.table = token_embedding(vocab_size, self.embedding_dim, embedding, freeze_embedding)
        if embedding is None:
            nn.init.normal_(self.table.weight[1:], std=_STD)
        self.widen: nn.Linear | None = None
        if self.embedding_dim != hidden:
            self.widen = nn.Linear(self.embedding_dim, hidden, bias=False)
        self.positions = nn.Embedding(max_positions, hidden)
        nn.init.normal_(self.positions.weight, std=_STD)
        self.blocks = nn.ModuleList(_Block(hidden, heads, ffn, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(hidden)
        self.n_features = hidden
        self.classifier = nn.Linear(hidden, n_classes)

    def forward(self, input_ids: Tensor, mask: Tensor) -> ModelOutput:
        """Classify [B, L] token ids; features are the mean of the last states [B, H]."""
        length = input_ids.shape[1]
        check_length(length, self.max_length)
        states = self.table(input_ids)
        if self.widen is not None:
            states = self.widen(states)
        states = states + self.positions.weight[:length]
        states = F.dropout(states, self.dropout, self.training)
        # A row without tokens would attend to nothing, which is NaN: it attends to its padding.
        attended = mask | ~mask.any(dim=1, keepdim=True)
        for block in self.blocks:
            states = block(states, attended)
        features = masked_mean(self.norm(states).float(), mask)
        kept = F.dropout(features, self.dropout, self.training)
        return ModelOutput(classify(self.classifier, kept), features)

    def head(self) -> tuple[Tensor, Tensor]:
        """Return the final layer: weight [C, D], bias [C]."""
        return self.classifier.weight, self.classifier.bias


class _Block(nn.Module):
    """Self-attention and a feed-forward part, each with a norm before and a shortcut around."""

    def __init__(self, hidden: int, heads: int, ffn: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.dropout = dropout
        self.norm_attention = nn.LayerNorm(hidden)
        self.query_key_value = nn.Linear(hidden, 3 * hidden)
        self.mix = nn.Linear(hidden, hidden)
        self.norm_ffn = nn.LayerNorm(hidden)
        self.up = nn.Linear(hidden, ffn)
        self.down = nn.Linear(ffn, hidden)

    def forward(self, states: Tensor, attended: Tensor) -> Tensor:
        """Map [B, L, H] to [B, L, H]; ``attended`` [B, L] bool says what may be looked at."""
        rows, length, hidden = states.shape
        joint = self.query_key_value(self.norm_attention(states))
        joint = joint.view(rows, length, 3, self.heads, hidden // self.heads)
        query, key, value = joint.permute(2, 0, 3, 1, 4)  # each [B, heads, L, H / heads]
        context = F.scaled_dot_product_attention(
            query,
            key,
            value,
            attn_mask=attended[:, None, None, :],
            dropout_p=self.dropout if self.training else 0.0,
        )
        context = self.mix(context.transpose(1, 2).reshape(rows, length, hidden))
        states = states + F.dropout(context, self.dropout, self.training)
        inner = self.down(F.gelu(self.up(self.norm_ffn(states))))
        return states + F.dropout(inner, self.dropout, self.training)


COMPONENT = Transformer
