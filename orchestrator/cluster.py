"""The Ray cluster a sweep runs on: a local one, or one that is already there."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.errors import OrchestratorError
from orchestrator.leftovers import claim, release, remove_leftovers
from trainables.lease import SWEEP_VARIABLE

# Ray reads these when it is imported or when its processes start, so they come first.
_ENVIRONMENT = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "300",
    "TUNE_FORCE_TRIAL_CLEANUP_S": "60",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    # A failed trial reports why and no metrics; the check would end the sweep for that.
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "RAY_AUTH_MODE": "token",
    # Ray's memory monitor kills what it guesses; the kernel, or the limit of a container, knows.
    # A cluster that was started by others may have it on: see survive_memory_monitor.
    "RAY_memory_monitor_refresh_ms": "0",
}
for _name, _value in _ENVIRONMENT.items():
    os.environ.setdefault(_name, _value)

import ray  # noqa: E402
from ray.air.execution._internal.actor_manager import RayActorManager  # noqa: E402
from ray.exceptions import (  # noqa: E402
    OutOfMemoryError,
    RayActorError,
    RayError,
    RayTaskError,
)
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy  # noqa: E402

_START_ATTEMPTS = 3
# A node starts a process for the question, and may read gigabytes of checkpoints to answer it.
_ANSWER_SECONDS = 300.0
OBJECT_STORE_BYTES = 200 * 2**20  # outputs travel as files, so the object store stays small

# What a trial needs from the driver's environment; it holds no credentials.
_FORWARDED = ("HF_HUB_OFFLINE", "HF_HOME", "HF_HUB_DISABLE_TELEMETRY")


@dataclass(frozen=True)
class Node:
    """An alive node and what it offers in all.

    Attributes:
        name: Its address.
        cpu: Logical CPUs.
        gpu: Logical GPUs.
        id: What Ray calls it.
    """

    name: str
    cpu: float
    gpu: float
    id: str = ""


@contextmanager
def connect(
    address: str | None = None,
    *,
    cpus: int | None = None,
    gpus: int | None = None,
    python_path: str = "",
    sweep: str = "",
) -> Iterator[list[Node]]:
    """Connect to a cluster, or start a local one that ends with the block.

    Args:
        address: ``auto`` or ``host:port`` of a running cluster; None starts one here.
        cpus: Logical CPUs of a local cluster; None for all there are.
        gpus: Logical GPUs of a local cluster; None for all there are.
        python_path: Folders to import a user's own components from.
        sweep: Identity of the sweep whose trials will run; see ``trainables.lease``.

    Yields:
        The alive nodes.
    """
    variables = {name: os.environ[name] for name in _FORWARDED if name in os.environ}
    variables |= {"TOKENIZERS_PARALLELISM": "false", SWEEP_VARIABLE: sweep or uuid.uuid4().hex}
    search_path = os.pathsep.join(
        part for part in (python_path, os.environ.get("PYTHONPATH", "")) if part
    )
    if search_path:
        variables["PYTHONPATH"] = search_path
    common: dict[str, Any] = {
        "runtime_env": {"env_vars": variables},
        "logging_level": logging.ERROR,
        "log_to_driver": False,
    }
    handler = signal.getsignal(signal.SIGTERM)
    if address is None:
        _start(
            address="local",  # not a cluster that somebody else has started on this machine
            num_cpus=cpus,
            num_gpus=gpus,
            include_dashboard=False,
            object_store_memory=OBJECT_STORE_BYTES,
            **common,
        )
        _protect_token()
    else:
        ray.init(address=address, **common)
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, handler)  # Ray has put its own there, which exits at once
    session = Path(ray._private.worker._global_node.get_session_dir_path())
    keep = address is not None
    if not keep:
        remove_leftovers(session.parent)
        claim(session)
    try:
        yield alive_nodes()
    except Exception as error:
        keep = keep or not isinstance(error, OrchestratorError)  # its logs may tell why
        raise
    finally:
        ray.shutdown()
        if not keep:
            shutil.rmtree(session, ignore_errors=True)
        elif address is None:
            release(session)


def _start(**settings: Any) -> None:
    """Start a local cluster, again if the host was too busy to do it in time.

    Raises:
        OrchestratorError: It did not start within Ray's half minute, which cannot be changed.
    """
    for _ in range(_START_ATTEMPTS):
        try:
            ray.init(**settings)
        except Exception as error:  # Ray raises nothing more special
            if "timed out during startup" not in str(error):
                raise
        else:
            return
    raise OrchestratorError(
        f"Ray could not start its processes within 30 s, tried {_START_ATTEMPTS} times: this "
        "machine is too busy; wait until it is less so and start the same command again"
    )


@contextmanager
def survive_memory_monitor() -> Iterator[None]:
    """Let Tune treat a process killed by Ray's memory monitor like any dead process.

    Tune knows two families of errors of actors and ends the whole run on any other, which the
    monitor's is. There is no public place to say otherwise.

    Source: ray 2.60, air/execution/_internal/actor_manager.py, ``_actor_task_failed``.
    """
    original = RayActorManager._actor_task_failed

    def survive(manager: Any, tracked_actor_task: Any, exception: Exception) -> None:
        known = isinstance(exception, RayActorError | RayTaskError)
        if isinstance(exception, RayError) and not known:
            exception = RayActorError(error_msg=_explain_kill(exception))
        original(manager, tracked_actor_task, exception)

    RayActorManager._actor_task_failed = survive
    try:
        yield
    finally:
        RayActorManager._actor_task_failed = original


def _explain_kill(error: RayError) -> str:
    if not isinstance(error, OutOfMemoryError):
        return str(error)
    return (
        f"{error}\nthe host's memory ran out and Ray's memory monitor killed the trial; use "
        "smaller batches, or raise the resources of its stage so that fewer run side by side"
    )


def _protect_token() -> None:
    """Take the token that opens local clusters from other users; Ray writes it for all to read."""
    default = Path.home() / ".ray" / "auth_token"
    token = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or default)
    if token.is_file() and token.stat().st_uid == os.getuid() and token.stat().st_mode & 0o077:
        token.chmod(0o600)


def alive_nodes() -> list[Node]:
    """List the nodes that are alive now."""
    return [
        Node(
            node["NodeManagerAddress"],
            float(node["Resources"].get("CPU", 0)),
            float(node["Resources"].get("GPU", 0)),
            node["NodeID"],
        )
        for node in ray.nodes()
        if node["Alive"]
    ]


def ask_nodes(
    nodes: Sequence[Node],
    function: Callable[..., Any],
    *arguments: Any,
    seconds: float = _ANSWER_SECONDS,
) -> dict[str, Any]:
    """Run a function once on each node, all at the same time, however busy the node is.

    Args:
        nodes: Where.
        function: Of an importable module, so that each node runs its own.
        arguments: Of the function.
        seconds: How long to wait for the answers.

    Returns:
        By node id what the function returned, or the exception that came instead. Nodes that were
        lost before they answered are left out.
    """
    task = ray.remote(function)
    asked = {
        task.options(
            num_cpus=0,
            max_retries=0,
            scheduling_strategy=NodeAffinitySchedulingStrategy(node.id, soft=False),
        ).remote(*arguments): node.id
        for node in nodes
    }
    ready, _ = ray.wait(list(asked), num_returns=len(asked), timeout=seconds)
    answers = {asked[reference]: _answer(reference) for reference in ready}
    for reference, node in asked.items():
        answers.setdefault(node, TimeoutError(f"no answer within {seconds:g} s"))
        if isinstance(answers[node], TimeoutError):
            ray.cancel(reference, force=True)
    alive = {node.id for node in alive_nodes()}
    return {node: answer for node, answer in answers.items() if node in alive}


def _answer(reference: Any) -> Any:
    try:
        return ray.get(reference)
    except RayError as error:
        return error


def slots(nodes: list[Node], resources: Mapping[str, float]) -> int:
    """Count the trials that fit at once; a trial never spans nodes."""
    return sum(_fits(node, resources) for node in nodes)


def _fits(node: Node, resources: Mapping[str, float]) -> int:
    counts = []
    if resources.get("cpu"):
        counts.append(int(node.cpu / resources["cpu"] + 1e-9))
    gpu = resources.get("gpu", 0)
    if gpu >= 1:
        counts.append(int(node.gpu / gpu + 1e-9))
    elif gpu:
        # A fraction never spans devices: at 0.6 each GPU holds one trial, whatever the sum says.
        counts.append(int(1 / gpu + 1e-9) * int(node.gpu))
    return min(counts) if counts else 1
