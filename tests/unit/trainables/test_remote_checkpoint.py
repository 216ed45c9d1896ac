"""Epoch checkpoints of a trial that moves from node to node."""

from pathlib import Path

import fsspec
import pytest
import torch

from trainables.checkpoint import Checkpoint
from trainables.remote import Remote
from trainables.remote_checkpoint import MAX_SHARE, UPLOAD_SECONDS, RemoteCheckpoint

KEY = "ab" * 32


@pytest.fixture(params=["s3", "memory"])
def remote(request: pytest.FixtureRequest, tmp_path: Path) -> Remote:
    if request.param == "s3":
        return Remote(request.getfixturevalue("s3"))
    fsspec.filesystem("memory").store.clear()
    return Remote(f"memory://{tmp_path.name}")


class Node:
    """A checkpoint on a node of its own, under a clock that the test moves."""

    def __init__(self, remote: Remote, root: Path) -> None:
        self.now = 0.0
        self.checkpoint = Checkpoint(root, KEY, remote=remote)
        self.checkpoint._elsewhere = RemoteCheckpoint(remote, KEY, clock=lambda: self.now)

    def train(self, epoch: int, seconds: float = UPLOAD_SECONDS) -> None:
        self.now += seconds
        self.checkpoint.save({"epoch": epoch, "weights": torch.full((3,), float(epoch))})

    def epoch(self) -> int | None:
        state = self.checkpoint.load()
        if state is not None:
            assert torch.equal(state["weights"], torch.full((3,), float(state["epoch"])))
        return None if state is None else int(state["epoch"])


def test_another_node_continues(remote: Remote, tmp_path: Path) -> None:
    one, two = Node(remote, tmp_path / "1"), Node(remote, tmp_path / "2")
    assert one.epoch() is None
    one.train(1)
    one.train(2)
    assert two.epoch() == 2
    two.train(3)
    assert one.epoch() == 3
    assert len(remote.names("checkpoints")) == 1
    one.checkpoint.clear()
    assert remote.names("checkpoints") == []
    assert Node(remote, tmp_path / "3").epoch() is None


def test_uploads_are_seldom(remote: Remote, tmp_path: Path) -> None:
    one, two = Node(remote, tmp_path / "1"), Node(remote, tmp_path / "2")
    one.train(1, seconds=UPLOAD_SECONDS / 2)
    assert two.epoch() is None
    one.train(2, seconds=UPLOAD_SECONDS / 2)
    one.train(3, seconds=UPLOAD_SECONDS / 2)
    assert two.epoch() == 2
    assert one.epoch() == 3  # its own file is newer than what it has uploaded


def test_slow_uploads_are_more_seldom(remote: Remote, tmp_path: Path) -> None:
    node = Node(remote, tmp_path)
    honest = remote.upload
    counted = []

    def upload(pairs: list[tuple[Path, str]]) -> None:
        counted.append(pairs)
        node.now += 20.0
        honest(pairs)

    remote.upload = upload  # type: ignore[assignment, method-assign]
    for epoch in range(1, 10):
        node.train(epoch)
    assert 20.0 / MAX_SHARE > 6 * UPLOAD_SECONDS
    assert len(counted) == 2


def test_a_torn_upload_is_no_checkpoint(remote: Remote, tmp_path: Path) -> None:
    one, two = Node(remote, tmp_path / "1"), Node(remote, tmp_path / "2")
    one.train(1)
    (name,) = remote.names("checkpoints")
    remote.write(name, (remote.read(name) or b"")[:-2])
    assert two.epoch() is None
    two.train(1)
    assert Node(remote, tmp_path / "3").epoch() == 1  # and not the torn one again


def test_a_torn_file_here_is_fetched_again(remote: Remote, tmp_path: Path) -> None:
    one = Node(remote, tmp_path / "1")
    one.train(1)
    one.checkpoint.path.write_bytes(b"torn")
    assert Node(remote, tmp_path / "1").epoch() == 1
    assert [p.name for p in one.checkpoint.folder.iterdir()] == [one.checkpoint.path.name]
