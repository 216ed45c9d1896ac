"""Epoch checkpoints: what a trial needs to continue after its process died.

A checkpoint is private to one trial key and disappears when the trial's artifact exists. It is
not fsynced: it must survive the death of a process, and after a power cut a bad one is
recognised by its checksum and the epoch is trained again.
"""

from __future__ import annotations

import hashlib
import io
import pickle
import shutil
from pathlib import Path
from typing import Any

import torch

from trainables.store import atomic_write

_DIGEST_BYTES = 32


class Checkpoint:
    """The newest state of one trial, in ``<root>/checkpoints/<key>/state.pt``.

    Args:
        root: Root folder of the content store.
        key: Key of the trial's artifact.
    """

    def __init__(self, root: Path, key: str) -> None:
        self.folder = root / "checkpoints" / key[:2] / key

    @property
    def path(self) -> Path:
        """Where the state is."""
        return self.folder / "state.pt"

    def save(self, state: dict[str, Any]) -> None:
        """Replace the checkpoint by ``state``: tensors and plain values only."""
        buffer = io.BytesIO()
        torch.save(state, buffer)
        payload = buffer.getvalue()
        atomic_write(self.path, hashlib.sha256(payload).digest() + payload, durable=False)

    def load(self) -> dict[str, Any] | None:
        """Return the newest state, or None if there is none that is whole."""
        try:
            content = self.path.read_bytes()
        except FileNotFoundError:
            return None
        digest, payload = content[:_DIGEST_BYTES], content[_DIGEST_BYTES:]
        if hashlib.sha256(payload).digest() != digest:
            return None
        try:
            # weights_only: a checkpoint on a shared disk must not be able to run code.
            state: dict[str, Any] = torch.load(io.BytesIO(payload), weights_only=True)
        except (RuntimeError, pickle.UnpicklingError):
            return None
        return state

    def clear(self) -> None:
        """Remove the checkpoint."""
        shutil.rmtree(self.folder, ignore_errors=True)
