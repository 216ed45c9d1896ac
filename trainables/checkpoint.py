"""Epoch checkpoints: what a trial needs to continue after its process died.

A checkpoint is private to one trial key and disappears when the trial's artifact exists. It is
not fsynced: it must survive the death of a process, and after a power cut a bad one is
recognised by its checksum and the epoch is trained again.

It is written after every epoch, and an epoch of a small student takes a second: so the tensors go
straight to the file, without pickling and without a second copy, under a cheap checksum.

Where the store is a URL, the file is on this node and goes there now and then, so that another node
can continue (``trainables.remote_checkpoint``).
"""

from __future__ import annotations

import json
import shutil
import uuid
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from trainables.store import disk_errors

if TYPE_CHECKING:
    from trainables.remote import Remote
    from trainables.remote_checkpoint import RemoteCheckpoint


class Checkpoint:
    """The newest state of one trial, in ``<root>/checkpoints/<key>/state.safetensors``.

    Args:
        root: Root folder of the content store.
        key: Key of the trial's artifact.
        remote: The files of a store behind a URL; ``root`` is then this node's folder for it.
    """

    def __init__(self, root: Path, key: str, *, remote: Remote | None = None) -> None:
        self.root = root
        self.folder = root / "checkpoints" / key[:2] / key
        self._elsewhere = None if remote is None else _elsewhere(remote, key)

    @property
    def path(self) -> Path:
        """Where the state is."""
        return self.folder / "state.safetensors"

    def save(self, state: Mapping[str, Any]) -> None:
        """Replace the checkpoint by ``state``: tensors and JSON values, nested as they may be.

        Raises:
            StoreError: The disk is full, read-only or not writable, or the URL does not answer.
        """
        tensors: dict[str, Tensor] = {}
        tree = json.dumps(_pack(state, tensors, set()))
        temporary = self.folder / f".{uuid.uuid4().hex}.tmp"
        facts = {"tree": tree, "crc32": str(_checksum(tree, tensors))}
        if self._elsewhere is not None:
            facts["saves"] = str(self._elsewhere.count())
        # Around the removal, too: in a read-only file system it fails even if nothing is there.
        with disk_errors("a checkpoint", self.root, elsewhere=self._elsewhere is not None):
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                save_file(tensors, temporary, metadata=facts)
                temporary.replace(self.path)
            finally:
                temporary.unlink(missing_ok=True)
        if self._elsewhere is not None:
            self._elsewhere.upload(self.path)

    def load(self) -> dict[str, Any] | None:
        """Return the newest state, on the CPU, or None if there is none that is whole."""
        if self._elsewhere is None:
            found = _read(self.path)
        else:
            with disk_errors("a checkpoint", self.root, elsewhere=True):
                found = self._newest(self._elsewhere)
        return None if found is None else found.state

    def clear(self) -> None:
        """Remove the checkpoint."""
        shutil.rmtree(self.folder, ignore_errors=True)
        if self._elsewhere is not None:
            self._elsewhere.clear()

    def _newest(self, elsewhere: RemoteCheckpoint) -> _Saved | None:
        """Return this node's state, or the one another node has uploaded since."""
        here = _read(self.path)
        saves = 0 if here is None else here.saves
        self.folder.mkdir(parents=True, exist_ok=True)
        fetched = self.folder / f".{uuid.uuid4().hex}.tmp"
        try:
            if elsewhere.download(fetched, newer_than=saves):
                there = _read(fetched)
                if there is not None:
                    fetched.replace(self.path)
                    here = there
        finally:
            fetched.unlink(missing_ok=True)
        elsewhere.continue_from(0 if here is None else here.saves)
        return here


@dataclass(frozen=True)
class _Saved:
    """A whole state, and how often its trial had saved one, on whatever node; 0 if not counted."""

    state: dict[str, Any]
    saves: int


def _read(path: Path) -> _Saved | None:
    """Return what a file holds, None if it is not there or not whole."""
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as stored:
            facts = stored.metadata()
            tensors = {name: stored.get_tensor(name) for name in _numbered(stored.keys())}
        if _checksum(facts["tree"], tensors) != int(facts["crc32"]):
            return None
        saves = int(facts.get("saves", 0))
    except (SafetensorError, KeyError, TypeError, ValueError):
        return None
    return _Saved(_unpack(json.loads(facts["tree"]), tensors), saves)


def _elsewhere(remote: Remote, key: str) -> RemoteCheckpoint:
    from trainables.remote_checkpoint import RemoteCheckpoint

    return RemoteCheckpoint(remote, key)


def _pack(value: Any, tensors: dict[str, Tensor], storages: set[int]) -> Any:
    """Return ``value`` as JSON, with its tensors moved to ``tensors`` and referred to by name."""
    if isinstance(value, Tensor):
        tensor = value.detach().cpu().contiguous()
        if tensor.untyped_storage().data_ptr() in storages:
            tensor = tensor.clone()  # the format knows no tensors that share memory
        storages.add(tensor.untyped_storage().data_ptr())
        name = str(len(tensors))
        tensors[name] = tensor
        return {"tensor": name}
    if isinstance(value, Mapping):
        # Pairs, because an optimizer numbers its parameters and JSON has no numbers as keys.
        return {"dict": [[key, _pack(item, tensors, storages)] for key, item in value.items()]}
    if isinstance(value, list | tuple):
        return {"list": [_pack(item, tensors, storages) for item in value]}
    return value


def _unpack(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    if not isinstance(value, dict):
        return value
    if "tensor" in value:
        return tensors[value["tensor"]]
    if "list" in value:
        return [_unpack(item, tensors) for item in value["list"]]
    return {key: _unpack(item, tensors) for key, item in value["dict"]}


def _checksum(tree: str, tensors: Mapping[str, Tensor]) -> int:
    """Return a CRC-32: it finds what a power cut leaves behind at a third of SHA-256's cost."""
    checksum = zlib.crc32(tree.encode("utf-8"))
    for tensor in tensors.values():
        checksum = zlib.crc32(tensor.reshape(-1).view(torch.uint8).numpy().data, checksum)
    return checksum


def _numbered(names: list[str]) -> list[str]:
    """Return the names in the order in which they were given: the file sorts them its own way."""
    return sorted(names, key=int)
