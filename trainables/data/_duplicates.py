"""Repeated texts: found, counted, and removed where that is honest."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from trainables.data import _rows
from trainables.data._part import UNLABELLED, Part

_PAIR = ("prints", "labels")
_HELD_OUT = ("within_dev", "within_test", "dev_test")


def without_duplicates(given: Mapping[str, Part]) -> dict[str, Part]:
    """Drop repeated texts from train and transfer, and those that dev or test also hold."""
    parts = dict(given)
    held_out = [given[role].prints for role in ("dev", "test") if role in given]
    seen = np.concatenate([np.zeros(0, np.int64), *held_out])
    for role in ("train", "transfer"):
        if role in parts:
            prints = parts[role].prints
            parts[role] = parts[role].where(~(_rows.repeated(prints) | np.isin(prints, seen)))
            seen = np.concatenate([seen, prints])
    return parts


def count_duplicates(given: Mapping[str, Part], splits: Mapping[str, Part]) -> dict[str, int]:
    """Count repeated texts as the files have them; carved splits are counted as carved."""
    counts = {}
    roles = [role for role in ("train", "dev", "test", "transfer") if role in splits]
    for number, role in enumerate(roles):
        part = given.get(role, splits[role])
        counts[f"within_{role}"] = int(_rows.repeated(part.prints).sum())
        for other in roles[number + 1 :]:
            # A carved split came out of the train file, so the files cannot be compared.
            both = given if role in given and other in given else splits
            counts[f"{role}_{other}"] = int(np.isin(both[role].prints, both[other].prints).sum())
    labelled = [part for part in given.values() if (part.labels != UNLABELLED).all()]
    pairs = np.stack([np.concatenate([getattr(p, what) for p in labelled]) for what in _PAIR])
    pairs = np.unique(pairs, axis=1)
    counts["conflicting"] = int((np.unique(pairs[0], return_counts=True)[1] > 1).sum())
    return counts


def _removable(name: str) -> bool:
    return name not in _HELD_OUT and name != "conflicting"


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {count}" for name, count in counts.items())


def duplicate_notes(duplicates: Mapping[str, int], removed: bool) -> list[str]:
    notes = []
    gone = {name: count for name, count in duplicates.items() if count and _removable(name)}
    kept = {name: count for name, count in duplicates.items() if count and name in _HELD_OUT}
    if gone:
        fate = "removed from train and transfer" if removed else "kept, as data.dedupe is off"
        notes.append(f"repeated texts, {fate}: {_listed(gone)}")
    if kept:
        notes.append(f"repeated texts, kept because dev and test stay as given: {_listed(kept)}")
    if duplicates["conflicting"]:
        notes.append(f"{duplicates['conflicting']} texts carry more than one label")
    return notes
