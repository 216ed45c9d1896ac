"""Which texts an exported student has learned from, so that it is not judged by them later.

As the teacher of another sweep it would answer texts that it knows: its own score, and what its
students learn of dev, would be too good. An export therefore carries the fingerprint of every text
that it, or an exported student that taught it, was trained on or chosen by. Fingerprints cannot be
read back, but who holds a text can look whether it was among them.

Legend: N texts, U distinct fingerprints.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save

from trainables.data._rows import Ints, fingerprints
from trainables.dataset import SPLITS, PreparedData, load_split, load_test
from trainables.store import Store

SEEN = "seen.safetensors"
SEEN_DEV, SEEN_TEST, UNKNOWN = "seen_dev", "seen_test", "seen_unknown"

_TENSOR = "fingerprints"
_SPLIT_OF = {SEEN_DEV: "dev", SEEN_TEST: "test"}


def write_seen(folder: Path, store: Store, data: str, teachers: tuple[str, ...]) -> None:
    """Write the fingerprints of all texts behind a student.

    Args:
        folder: Where the file goes.
        store: Holds the data and the teachers.
        data: Key of the data it learned from.
        teachers: Keys of its teachers; those that were exported students add what they have seen.
    """
    parts = [fingerprints(load_split(store, data, split).texts) for split in SPLITS]
    for teacher in teachers:
        if not store.exists("teacher", teacher):
            continue  # deleted to save space; an exported student leaves its export behind
        file = store.read("teacher", teacher).file(SEEN)
        if file.is_file():
            parts.append(load_file(file)[_TENSOR])
    (folder / SEEN).write_bytes(save({_TENSOR: np.unique(np.concatenate(parts))}))


def count_seen(folder: Path, store: Store, data: PreparedData) -> dict[str, float]:
    """Return how many rows of dev and test an exported student knows, under metric names.

    Only texts are looked at, no labels, and the answer decides nothing.

    Args:
        folder: The export.
        store: Holds the data.
        data: Of the sweep that it is to teach.
    """
    file = folder / SEEN
    if not file.is_file():
        return {UNKNOWN: 1.0}  # exported before it was written down
    seen: Ints = load_file(file)[_TENSOR]
    found = {SEEN_DEV: _known(load_split(store, data.key, "dev").texts, seen)}
    if data.test_key is not None:
        found[SEEN_TEST] = _known(load_test(store, data.test_key).texts, seen)
    return found


def seen_sentence(name: str, metrics: Mapping[str, float], rows: Mapping[str, int]) -> str | None:
    """Return a warning about a teacher that knows texts it will be judged by, or None.

    Args:
        name: The teacher.
        metrics: Of the teacher.
        rows: Rows of each split.
    """
    if metrics.get(UNKNOWN):
        return (
            f"It is not known whether teacher {name} has learned from texts of dev or test: its "
            "export does not say. Export it again."
        )
    parts = [
        f"{metrics[metric]:.0f} of {rows.get(split, 0)} {split} texts"
        for metric, split in _SPLIT_OF.items()
        if metrics.get(metric)
    ]
    if not parts:
        return None
    return (
        f"Teacher {name} has learned from {' and '.join(parts)} in an earlier sweep: its scores "
        "there, and those of its students, are too good. Use rows it has not seen."
    )


def _known(texts: list[str], seen: Ints) -> float:
    return float(np.isin(fingerprints(texts), seen).sum())
