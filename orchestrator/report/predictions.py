"""Predictions of confirmed students and of teachers, read from the store and aligned by id.

Legend: N examples, C classes, S seeds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orchestrator.records import TrialRecord, TrialState
from orchestrator.report.parts import ConfirmRow
from trainables.errors import ArtifactMissing
from trainables.store import Store

Array = NDArray[Any]


@dataclass(frozen=True)
class Predictions:
    """One model on one split, sorted by id.

    Attributes:
        ids: Example ids ``[N]`` int64, ascending.
        logits: ``[N, C]`` float32.
        targets: True classes ``[N]`` int64, -100 where unknown; None for teachers.
    """

    ids: Array
    logits: Array
    targets: Array | None = None

    def on(self, ids: Array) -> Predictions:
        """Return the rows of ``ids``, which must all be there."""
        if np.array_equal(ids, self.ids):
            return self
        rows = np.searchsorted(self.ids, ids)
        targets = None if self.targets is None else self.targets[rows]
        return Predictions(ids, self.logits[rows], targets)


@dataclass(frozen=True)
class Arm:
    """One configuration's predictions over its seeds, all on the same examples.

    Attributes:
        role: ``candidate`` or the control's role.
        seeds: Ascending, ``[S]``.
        models: Predictions of each seed.
    """

    role: str
    seeds: tuple[int, ...]
    models: tuple[Predictions, ...]

    def on(self, ids: Array) -> Arm:
        """Return the arm restricted to ``ids``."""
        return Arm(self.role, self.seeds, tuple(model.on(ids) for model in self.models))

    def classes(self) -> Array:
        """Return predicted classes ``[S, N]``."""
        return np.stack([model.logits.argmax(1) for model in self.models])


class Reader:
    """Reads predictions; what is missing is remembered in ``missing`` instead of raised."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.missing: list[str] = []

    def confirmed(self, row: ConfirmRow, split: str) -> Arm | None:
        """Return the predictions of a confirmed configuration on ``test`` or ``dev``.

        Dev predictions lie with the student that the confirm artifact names.
        """
        seeds, models = [], []
        for key, seed in zip(row.keys, row.seeds, strict=True):
            if split == "test":
                found = self._read("confirm", key, "predictions.safetensors")
            else:
                found = self._dev(key)
            if found is None:
                self.missing.append(f"{row.role} seed {seed} ({split})")
            else:
                seeds.append(seed)
                models.append(found)
        return Arm(row.role, tuple(seeds), tuple(models)) if models else None

    def listed(self, kind: str, keys: Mapping[int, str], role: str, split: str) -> Arm | None:
        """Return the predictions of a listed arm on ``test`` or ``dev``.

        Args:
            kind: Kind of its artifacts, ``confirm`` or ``ensemble``.
            keys: Their keys by seed.
            role: Its name.
            split: Which predictions.
        """
        seeds, models = [], []
        for seed, key in sorted(keys.items()):
            if split == "test":
                found = self._read(kind, key, "predictions.safetensors")
            elif kind == "confirm":
                found = self._dev(key)
            else:
                found = self._read(kind, key, "dev.safetensors")
            if found is None:
                self.missing.append(f"{role} seed {seed} ({split})")
            else:
                seeds.append(seed)
                models.append(found)
        return Arm(role, tuple(seeds), tuple(models)) if models else None

    def _dev(self, key: str) -> Predictions | None:
        """Read the dev predictions that lie with the student a confirm artifact names."""
        meta = self._store.meta("confirm", key) or {}
        return self._read(meta.get("task", "student"), meta.get("student", key), "dev.safetensors")

    def searched(self, key: str, role: str, seed: int) -> Arm | None:
        """Return the dev predictions of one trial of the student stage."""
        found = self._read("student", key, "dev.safetensors")
        if found is None:
            self.missing.append(f"{role} (dev)")
            return None
        return Arm(role, (seed,), (found,))

    def teachers(self, outputs: Sequence[TrialRecord], split: str) -> dict[str, Predictions]:
        """Return the teachers' outputs on a split, by teacher's name."""
        found = {}
        for trial in outputs:
            if trial.state is not TrialState.COMPLETE or trial.spec.get("split") != split:
                continue
            if trial.spec.get("anchor", 1.0) != 1.0:
                continue  # of a teacher on its way
            predictions = self._read("outputs", trial.key, "outputs.safetensors")
            if predictions is None:
                self.missing.append(f"teacher {trial.role} ({split})")
            else:
                found[trial.role] = predictions
        return found

    def _read(self, kind: str, key: str, name: str) -> Predictions | None:
        from safetensors.numpy import load_file

        try:
            path = self._store.read(kind, key).file(name)
        except ArtifactMissing:
            return None
        return _sorted(load_file(path)) if path.is_file() else None


def common_ids(arms: Sequence[Arm]) -> Array:
    """Return the ids that every model of every arm has predicted, ascending."""
    ids: Array = arms[0].models[0].ids
    for arm in arms:
        for model in arm.models:
            if not np.array_equal(ids, model.ids):
                ids = np.intersect1d(ids, model.ids, assume_unique=True)
    return ids


def paired(first: Arm, second: Arm) -> tuple[Arm, Arm]:
    """Return both arms with the seeds they share; without a common one, pair them in order.

    Seeds with the same number share little more than the number, so pairing in order is as good.
    """
    seeds = [seed for seed in first.seeds if seed in second.seeds]
    if seeds:
        return _pick(first, seeds), _pick(second, seeds)
    length = min(len(first.seeds), len(second.seeds))
    return _pick(first, first.seeds[:length]), _pick(second, second.seeds[:length])


def _pick(arm: Arm, seeds: Sequence[int]) -> Arm:
    models = tuple(arm.models[arm.seeds.index(seed)] for seed in seeds)
    return Arm(arm.role, tuple(seeds), models)


def _sorted(tensors: Mapping[str, Array]) -> Predictions:
    ids = tensors["ids"]
    order = np.argsort(ids, kind="stable")
    targets = tensors.get("targets")
    return Predictions(
        ids[order], tensors["logits"][order], None if targets is None else targets[order]
    )
