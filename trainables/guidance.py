"""Guidance: the cached outputs of a student's teachers, lined up with its rows.

Legend: N rows, B batch, C classes, D features, K teachers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from trainables.encoded import Encoded
from trainables.errors import TrialFailed
from trainables.outputs import TeacherOutputs, load_outputs, positions
from trainables.store import Store


class Guidance:
    """Teacher logits and features of any batch of a student's rows.

    Args:
        store: Holds the outputs.
        teachers: Name and outputs keys of each teacher; ``outputs[anchor][split]``.
        rows: The student's rows; outputs are matched with them by example id.
        splits: The splits those rows come from.

    Raises:
        DataError: Outputs do not cover the rows.
    """

    def __init__(
        self,
        store: Store,
        teachers: Sequence[tuple[str, Sequence[Mapping[str, str]]]],
        rows: Encoded,
        splits: Sequence[str],
    ) -> None:
        self._teachers = [
            [
                _Aligned.of([load_outputs(store, keys[split]) for split in splits], rows, name)
                for keys in anchors
            ]
            for name, anchors in teachers
        ]
        n_anchors = len(self._teachers[0])
        self._logits = [
            torch.stack([anchors[a].logits for anchors in self._teachers]) for a in range(n_anchors)
        ]
        self._uses_features = False
        self.anchor = n_anchors - 1

    def logits(self, index: Tensor) -> Tensor:
        """Return ``[K, B, C]`` float32 of the active anchor."""
        return self._logits[self.anchor][:, index]

    def features(self, index: Tensor, device: torch.device) -> list[Tensor] | None:
        """Return ``[B, D_k]`` float32 for each teacher, if a hint compares features."""
        if not self._uses_features:
            return None
        return [
            anchors[self.anchor].features(index).to(device).float() for anchors in self._teachers
        ]

    def prepare(self, hint: Any, n_features: int) -> None:
        """Tell a hint the sizes of what it will compare, and serve features if it wants them.

        Args:
            hint: A component of kind ``hints``.
            n_features: D of the student.

        Raises:
            TrialFailed: The outputs were cached without features.
        """
        if hint.level == "logits":
            n_classes = self._logits[0].shape[2]
            hint.setup(n_classes, [n_classes] * len(self._teachers))
            return
        self._uses_features = True
        dims = [anchors[-1].n_features for anchors in self._teachers]
        heads = [anchors[-1].head() for anchors in self._teachers] if hint.needs_heads else None
        hint.setup(n_features, dims, heads)


@dataclass(frozen=True)
class _Aligned:
    """One teacher's outputs at one anchor, in the order of the student's rows."""

    parts: Sequence[TeacherOutputs]
    order: Tensor

    @classmethod
    def of(cls, parts: Sequence[TeacherOutputs], rows: Encoded, name: str) -> _Aligned:
        available = torch.cat([part.ids for part in parts])
        return cls(parts, positions(rows.ids, available, f"teacher {name!r}"))

    @property
    def logits(self) -> Tensor:
        """``[N, C]`` float32."""
        return torch.cat([part.logits for part in self.parts])[self.order]

    @property
    def n_features(self) -> int:
        """D."""
        return self._mapped()[0].shape[1]

    def features(self, index: Tensor) -> Tensor:
        """Return ``[B, D]`` float16, read from the memory-mapped files: they may be big."""
        where = self.order[index]  # [B]
        parts = self._mapped()
        if len(parts) == 1:
            return parts[0][where]
        rows = torch.empty(len(where), self.n_features, dtype=parts[0].dtype)
        first = 0
        for part in parts:
            inside = (where >= first) & (where < first + len(part))
            rows[inside] = part[where[inside] - first]
            first += len(part)
        return rows

    def _mapped(self) -> list[Tensor]:
        """Return the features ``[N_part, D]`` of each part."""
        features = [part.features for part in self.parts if part.features is not None]
        if len(features) != len(self.parts):
            raise TrialFailed(
                "this hint compares features, but the outputs hold only logits; delete those "
                "outputs (orchestrator gc) and start the sweep again"
            )
        return features

    def head(self) -> tuple[Tensor, Tensor]:
        """The teacher's last layer: weight ``[C, D]`` and bias ``[C]``."""
        head = self.parts[0].head
        if head is None:
            raise TrialFailed("this hint needs the teachers' last layers, which were not cached")
        return head
