"""When the engine asks the nodes of a cluster what they have."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator import cluster, node_checks
from orchestrator.cluster import Node
from orchestrator.engine import Engine, Options
from orchestrator.home import Home
from orchestrator.schema import SweepConfig
from orchestrator.state import SweepState
from orchestrator.sweep import Sweep
from orchestrator.tracking import EventBus

A, B = Node("10.0.0.1", 2.0, 0.0, "a"), Node("10.0.0.2", 2.0, 0.0, "b")


class Cluster:
    """A cluster whose nodes come and go, and what its nodes were asked."""

    def __init__(self) -> None:
        self.nodes = [A]
        self.asked: list[tuple[Any, ...]] = []

    @contextmanager
    def connect(self, address: str | None, **options: Any) -> Iterator[list[Node]]:
        yield list(self.nodes)

    def alive_nodes(self) -> list[Node]:
        return list(self.nodes)

    def check(self, nodes: Any, store: Path, checkpoints: Any, ask: Any) -> None:
        assert ask is cluster.ask_nodes
        self.asked.append(([node.id for node in nodes], store, dict(checkpoints)))


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    fake = Cluster()
    monkeypatch.setattr(cluster, "connect", fake.connect)
    monkeypatch.setattr(cluster, "alive_nodes", fake.alive_nodes)
    monkeypatch.setattr(node_checks, "check_nodes", fake.check)
    return fake


def engine(config: SweepConfig, home: Home, address: str | None) -> Engine:
    state = SweepState(config, home)
    return Engine(config, home, state, EventBus([]), Options(address=address))


def test_each_node_of_a_cluster_is_asked_once(
    fake: Cluster, config: SweepConfig, tmp_path: Path
) -> None:
    home = Home(tmp_path)
    subject = engine(config, home, "auto")
    subject.checkpoints = {"/models/bert": "0" * 64}
    subject._connect()
    subject._connect()
    fake.nodes = [A, B]
    subject._connect()
    root = home.store.root
    wanted = {"/models/bert": "0" * 64}
    assert fake.asked == [(["a"], root, wanted), (["b"], root, wanted)]


def test_a_node_that_was_refused_is_asked_again(
    fake: Cluster, config: SweepConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject = engine(config, Home(tmp_path), "auto")

    def refuse(*arguments: Any) -> None:
        raise RuntimeError("refused")

    with monkeypatch.context() as patch:
        patch.setattr(node_checks, "check_nodes", refuse)
        with pytest.raises(RuntimeError):
            subject._connect()
    subject._connect()
    assert [ids for ids, *_ in fake.asked] == [["a"]]


def test_a_local_cluster_is_this_machine(
    fake: Cluster, config: SweepConfig, tmp_path: Path
) -> None:
    assert engine(config, Home(tmp_path), None)._connect() == [A]
    assert fake.asked == []


def test_the_checkpoints_of_trained_teachers_are_named(
    config: SweepConfig, make_materials: Any, tmp_path: Path
) -> None:
    materials = make_materials(config)
    first, *rest = materials.teachers
    model = {**first.spec.model, "checkpoint": "/models/bert"}
    pretrained = replace(first, spec=replace(first.spec, model=model, checkpoint_digest="0" * 64))
    # An exported student is named by the digest of its folder, and has been copied to the store.
    exported = replace(rest[0], spec=replace(rest[0].spec, checkpoint_digest="1" * 64))
    materials = replace(materials, teachers=(pretrained, exported))
    sweep = Sweep(config, Home(tmp_path), EventBus([]), Options())
    sweep._describe(materials)
    assert sweep.engine.checkpoints == {"/models/bert": "0" * 64}
