"""A worker that has joined, but mounts another folder where the store should be."""

import time
from collections.abc import Callable
from typing import Any

import pytest

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(1200)]


def test_a_worker_without_the_store_is_refused_by_name(stack: Any, figures: dict[str, Any]) -> None:
    before = stack.alive()
    stack.add_worker("apart", shared=False)
    host = stack.hosts["apart"]
    joined = before | {host.ip}
    _until(lambda: stack.alive() == joined, "the worker without the store")
    started = time.monotonic()
    done = stack.orchestrator("submit", "smoke", "--set=name=apart", timeout=400)
    took = time.monotonic() - started
    figures["seconds until a worker without the store was refused"] = round(took, 1)
    host.cut()
    assert done.returncode == 3, done.stdout[-3000:] + done.stderr
    (refused,) = [line for line in done.stdout.splitlines() if "does not share" in line]
    assert f"node {host.ip}: does not share the store {stack.home / 'store'} (" in refused
    assert refused.endswith("mount the driver's folder there at the same path")
    _until(lambda: stack.alive() == before, "the loss of that worker")


def _until(ready: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 240
    while not ready():
        assert time.monotonic() < deadline, f"{what}: not within 240 s"
        time.sleep(1)
