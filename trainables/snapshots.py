"""What a teacher says on the way: its outputs after given shares of its training.

Outputs are stored and not weights: a snapshot of an encoder is hundreds of megabytes, its logits
on a hundred thousand rows of ten classes are four.

Legend: A anchors.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import nn

from trainables.answers import Resolved, ask
from trainables.device import pick_device
from trainables.evaluation import open_encoded
from trainables.outputs import OutputsSpec, write_outputs
from trainables.store import Store


class Snapshots:
    """Stores a teacher's outputs when its training passes an anchor.

    Args:
        outputs: The outputs of the trained teacher for each split; those of an anchor differ from
            them in ``anchor`` only.
        anchors: Shares of the training, ascending, above 0 and below 1.
        steps: Optimizer steps of the whole training.
        store: Where they go.
        precision: Of the forward passes.
        groups: Superclass of each class, for a teacher of superclasses.
    """

    def __init__(
        self,
        outputs: Iterable[OutputsSpec],
        anchors: Sequence[float],
        steps: int,
        store: Store,
        precision: Resolved,
        groups: Sequence[int] | None = None,
    ) -> None:
        self._outputs = list(outputs)
        self._store = store
        self._precision: Resolved = precision
        self._groups = groups
        self._due: dict[int, list[float]] = defaultdict(list)
        for anchor in anchors:
            self._due[anchor_step(anchor, steps)].append(anchor)

    def at(self, step: int, model: nn.Module) -> None:
        """Store the outputs of the anchors that this optimizer step has reached, if any."""
        for anchor in self._due.get(step, ()):
            for spec in self._outputs:
                self._take(replace(spec, anchor=anchor), model)
            model.train()  # asking has put it into evaluation mode

    def _take(self, spec: OutputsSpec, model: nn.Module) -> None:
        started = time.perf_counter()
        encoded = open_encoded(self._store, spec.encoded)
        answers = ask(
            model, encoded, spec.features, device=pick_device(), precision=self._precision
        )
        write_outputs(spec, self._store, encoded, answers, self._precision, self._groups, started)


def anchor_step(anchor: float, steps: int) -> int:
    """Return the optimizer step, 1 for the first, after which a share of training is done."""
    return max(1, round(anchor * steps))


def anchor_outputs(
    teacher: str, name: str, splits: Mapping[str, str], **settings: Any
) -> list[OutputsSpec]:
    """Return the outputs of a teacher on several splits.

    Args:
        teacher: Key of the teacher.
        name: Its name.
        splits: Key of the encoded rows of each split.
        settings: ``features`` and ``precision``.
    """
    return [
        OutputsSpec(teacher, name, split, encoded, **settings) for split, encoded in splits.items()
    ]
