"""Ray at its limits: a process its memory monitor has killed, a host too busy to start it."""

from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("ray")

from orchestrator import cluster  # sets what Ray reads on import  # isort: skip
from orchestrator.errors import OrchestratorError  # isort: skip
from ray.air.execution._internal.actor_manager import RayActorManager
from ray.exceptions import NodeDiedError, OutOfMemoryError, RayActorError, RayTaskError

KILLED = OutOfMemoryError("Task was killed due to the node running low on memory.")


def hear(error: Exception) -> list[Exception]:
    """Let the manager hear that a call to an actor failed, as it hears it from Ray."""
    heard: list[Exception] = []
    actor = SimpleNamespace(actor_id=1, _on_error=lambda actor, error: heard.append(error))
    task = SimpleNamespace(_tracked_actor=actor, _on_error=lambda actor, error: None)
    manager: Any = SimpleNamespace(
        _failed_actor_ids=set(), _cleanup_actor=lambda tracked_actor: None
    )
    RayActorManager._actor_task_failed(manager, tracked_actor_task=task, exception=error)
    return heard


def test_ray_still_ends_the_run_by_itself() -> None:
    """If this fails, Ray has learned it, and ``survive_memory_monitor`` can go."""
    with pytest.raises(RuntimeError, match="Caught unexpected exception"):
        hear(KILLED)


@pytest.mark.parametrize("error", [KILLED, NodeDiedError("gone")])
def test_a_killed_process_is_a_dead_process(error: Exception) -> None:
    with cluster.survive_memory_monitor():
        (heard,) = hear(error)
    assert isinstance(heard, RayActorError)
    assert str(error) in str(heard)


def test_the_last_line_of_the_error_says_what_to_do() -> None:
    with cluster.survive_memory_monitor():
        (heard,) = hear(KILLED)
    last = str(heard).splitlines()[-1]
    assert last.startswith("the host's memory ran out and Ray's memory monitor killed the trial")
    assert "raise the resources" in last


def test_other_errors_are_left_alone() -> None:
    mine = RayActorError(error_msg="dead")
    with cluster.survive_memory_monitor():
        assert hear(mine) == [mine]
        assert hear(RayTaskError("f", "traceback", ValueError())) == []
        with pytest.raises(RuntimeError):
            hear(ValueError())
    with pytest.raises(RuntimeError):
        hear(KILLED)


BUSY = Exception("The current node timed out during startup. This could happen because ...")


@pytest.mark.parametrize("failures", [0, 2])
def test_a_busy_machine_gets_another_chance(monkeypatch: pytest.MonkeyPatch, failures: int) -> None:
    left = [BUSY] * failures

    def init(**settings: Any) -> None:
        assert settings == {"num_cpus": 2}
        if left:
            raise left.pop()

    monkeypatch.setattr(cluster.ray, "init", init)
    cluster._start(num_cpus=2)
    assert left == []


def test_a_machine_that_stays_busy_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []

    def init(**_: Any) -> None:
        tried.append(1)
        raise BUSY

    monkeypatch.setattr(cluster.ray, "init", init)
    with pytest.raises(OrchestratorError, match=r"too busy; wait .*start the same command again"):
        cluster._start()
    assert len(tried) == 3


def test_another_failure_of_ray_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def init(**_: Any) -> None:
        raise ConnectionError("no such address")

    monkeypatch.setattr(cluster.ray, "init", init)
    with pytest.raises(ConnectionError):
        cluster._start()
