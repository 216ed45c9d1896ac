"""A real Ray node is asked; tests/cluster asks several, and one with another store."""

import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator import cluster, node_checks
from orchestrator.cluster import Node

pytestmark = [pytest.mark.ray, pytest.mark.timeout(240)]


# Ray takes functions that are written in Python.
def process() -> int:
    return os.getpid()


def names(folder: str) -> list[str]:
    return os.listdir(folder)


def sleep(seconds: float) -> None:
    time.sleep(seconds)


def test_the_checks_run_in_another_process_of_the_node(
    ray_cluster: list[Node], tmp_path: Path
) -> None:
    (node,) = ray_cluster
    assert node.id
    node_checks.check_nodes([node], tmp_path, {}, cluster.ask_nodes)
    assert cluster.ask_nodes([node], process)[node.id] != os.getpid()


def test_a_function_that_fails_is_an_answer(ray_cluster: list[Node], tmp_path: Path) -> None:
    (node,) = ray_cluster
    answer: Any = cluster.ask_nodes([node], names, str(tmp_path / "missing"))[node.id]
    assert isinstance(answer, Exception)
    assert "No such file or directory" in str(answer)


def test_silence_is_an_answer_but_not_for_ever(ray_cluster: list[Node]) -> None:
    (node,) = ray_cluster
    started = time.monotonic()
    answer = cluster.ask_nodes([node], sleep, 60, seconds=1)[node.id]
    assert str(answer) == "no answer within 1 s"
    assert time.monotonic() - started < 30


def test_a_node_that_is_gone_has_no_answer(ray_cluster: list[Node]) -> None:
    (node,) = ray_cluster
    gone = replace(node, id="0" * len(node.id))
    answers = cluster.ask_nodes([node, gone], process, seconds=60)
    assert list(answers) == [node.id]
