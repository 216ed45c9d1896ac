import errno
import os
import resource
from pathlib import Path
from typing import Any

import pytest
import torch

from trainables.checkpoint import Checkpoint
from trainables.errors import StoreError

STATE: dict[str, Any] = {
    "epoch": 3,
    "score": 0.1 + 0.2,
    "none": None,
    "flag": True,
    "text": "Schlüssel",
    "history": [{"epoch": 1, "loss": 1.5}, {"epoch": 2, "loss": float("inf")}],
    "optimizer": {"state": {0: {"step": torch.tensor(7.0)}, 1: {"step": torch.tensor(8.0)}}},
    "weights": {
        "matrix": torch.arange(12.0).reshape(3, 4),
        "half": torch.tensor([1.5, -2.0], dtype=torch.bfloat16),
        "turned": torch.arange(6).reshape(2, 3).T,
        "empty": torch.zeros(0, 3),
    },
    "random": torch.get_rng_state(),
}


def equal(left: Any, right: Any) -> bool:
    if isinstance(left, torch.Tensor):
        return left.dtype == right.dtype and torch.equal(left, right)
    if isinstance(left, dict):
        return list(left) == list(right) and all(equal(left[key], right[key]) for key in left)
    if isinstance(left, list):
        return len(left) == len(right) and all(map(equal, left, right))
    return type(left) is type(right) and bool(left == right)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Checkpoint:
    return Checkpoint(tmp_path, "ab" * 32)


def test_the_state_comes_back_as_it_was(checkpoint: Checkpoint) -> None:
    checkpoint.save(STATE)
    loaded = checkpoint.load()
    assert equal(loaded, STATE)


def test_tensors_that_share_memory_are_saved(checkpoint: Checkpoint) -> None:
    whole = torch.arange(10.0)
    checkpoint.save({"whole": whole, "part": whole[2:5], "same": whole})
    assert equal(checkpoint.load(), {"whole": whole, "part": whole[2:5], "same": whole})


def test_many_tensors_keep_their_order(checkpoint: Checkpoint) -> None:
    state = {"list": [torch.tensor(float(number)) for number in range(25)]}
    checkpoint.save(state)
    assert equal(checkpoint.load(), state)


def test_saving_replaces_and_leaves_one_file(checkpoint: Checkpoint) -> None:
    checkpoint.save({"epoch": 1})
    checkpoint.save({"epoch": 2})
    assert checkpoint.load() == {"epoch": 2}
    assert list(checkpoint.folder.iterdir()) == [checkpoint.path]


def test_nothing_there(checkpoint: Checkpoint) -> None:
    assert checkpoint.load() is None
    checkpoint.clear()
    checkpoint.save({"epoch": 1})
    checkpoint.clear()
    assert checkpoint.load() is None


@pytest.mark.parametrize("where", [0.02, 0.3, 0.6, 0.999])
def test_a_flipped_byte_is_no_checkpoint(checkpoint: Checkpoint, where: float) -> None:
    checkpoint.save(STATE)
    content = bytearray(checkpoint.path.read_bytes())
    content[int(where * len(content))] ^= 0x01
    checkpoint.path.write_bytes(content)
    assert checkpoint.load() is None


@pytest.mark.parametrize("length", [0, 5, 300, -1])
def test_a_torn_file_is_no_checkpoint(checkpoint: Checkpoint, length: int) -> None:
    checkpoint.save(STATE)
    checkpoint.path.write_bytes(checkpoint.path.read_bytes()[:length])
    assert checkpoint.load() is None


def test_a_full_disk_is_a_store_error_and_keeps_the_last_epoch(checkpoint: Checkpoint) -> None:
    checkpoint.save({"epoch": 1})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
    try:
        with pytest.raises(StoreError, match="cannot write a checkpoint"):
            checkpoint.save({"epoch": 2, "weights": torch.zeros(100_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert checkpoint.load() == {"epoch": 1}
    assert list(checkpoint.folder.iterdir()) == [checkpoint.path]


def test_a_read_only_disk_is_a_store_error(
    checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There, even the removal of a file that does not exist is refused."""

    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(Path, "mkdir", refuse)
    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.raises(StoreError, match=r"cannot write a checkpoint.*Read-only file system"):
        checkpoint.save({"epoch": 1})
