"""Rows of one split: as they are stored, and on their way there.

Legend: N rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from trainables.data import _blocks, _rows
from trainables.data._rows import Bools, Ints
from trainables.data._table import Table

UNLABELLED = -100


@dataclass(frozen=True, eq=False)
class SplitTable:
    """The rows of one split.

    Attributes:
        ids: Example ids, all different, int64 ``[N]``.
        texts: N texts as the source wrote them.
        labels: Class ids, -100 where there is no label, int64 ``[N]``.
        blocks: Of training rows with a ``data.group``: the number of each row's group, 0 for the
            biggest, int64 ``[N]``.
    """

    ids: Ints
    texts: list[str]
    labels: Ints
    blocks: Ints | None = None


@dataclass
class Part:
    """Rows on their way into a split.

    ``prints`` are hashes of the normalised texts, ``blocks`` of what keeps rows together.
    """

    texts: list[str]
    prints: Ints
    ids: Ints
    labels: Ints
    blocks: Ints | None = None

    @classmethod
    def of(cls, table: Table, classes: Mapping[str, int]) -> Part:
        prints = _rows.fingerprints(table.texts)
        labels = np.full(len(prints), UNLABELLED, np.int64)
        if table.labels is not None:
            labels[:] = [classes[label] for label in table.labels]
        blocks = None if table.blocks is None else _rows.fingerprints(table.blocks)
        return cls(table.texts, prints, _rows.example_ids(prints), labels, blocks)

    def where(self, chosen: Bools | Ints) -> Part:
        rows = np.flatnonzero(chosen) if chosen.dtype == bool else chosen
        texts = [self.texts[row] for row in rows.tolist()]
        blocks = None if self.blocks is None else self.blocks[rows]
        return Part(texts, self.prints[rows], self.ids[rows], self.labels[rows], blocks)

    def without_labels(self) -> Part:
        return Part(self.texts, self.prints, self.ids, np.full_like(self.labels, UNLABELLED))

    def table(self, role: str) -> SplitTable:
        blocks = self.blocks if role == "train" else None
        numbers = None if blocks is None else _blocks.numbered(blocks)
        return SplitTable(self.ids, self.texts, self.labels, numbers)

    @property
    def n_blocks(self) -> int:
        return 0 if self.blocks is None else len(np.unique(self.blocks))
