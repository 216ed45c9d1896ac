"""A node of the cluster: ``python -m orchestrator.deployment.node head|worker|healthy``.

The containers, the cloud VMs and the tests all start Ray through this module, so that none of
them can forget the token, and a worker of another release never joins.
"""

from __future__ import annotations

import argparse
import os
import socket
import sys
import time
from collections.abc import MutableMapping, Sequence
from typing import Any

from orchestrator.deployment import secrets
from orchestrator.deployment.release import Release, this_release
from orchestrator.errors import OrchestratorError, PreflightError, Problem

GCS_PORT = 6379
# Trials inherit these from the node, not from the driver; see orchestrator.cluster for the reasons.
ENVIRONMENT = {
    "RAY_memory_monitor_refresh_ms": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    # A stopped sweep lets running epochs end and writes its ledger; Ray's own patience is 3 s.
    "RAY_JOB_STOP_WAIT_TIME_S": "120",
    # Without the head nothing of the cluster is left; waiting a minute for it only delays that.
    "RAY_gcs_rpc_server_reconnect_timeout_s": "20",
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Start this node, or look whether it is well; ends with the exit code of what went wrong."""
    options = _parser().parse_args(arguments)
    try:
        secrets.enter_ray(secrets.folder_of(), os.environ)
        enter(os.environ)
        if options.role == "head":
            _become(head_command(options, this_release()))
        elif options.role == "worker":
            check_release(this_release(), wait_for_head(options.address, options.wait))
            _become(worker_command(options, this_release()))
        elif not _is_alive(options.address, options.node_ip):
            raise OrchestratorError(f"this node is not part of the cluster at {options.address}")
    except OrchestratorError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(error.exit_code)


def enter(environment: MutableMapping[str, str]) -> None:
    """Give Ray's processes on this node the settings that the project relies on."""
    for name, value in ENVIRONMENT.items():
        environment.setdefault(name, value)


def head_command(options: argparse.Namespace, release: Release) -> list[str]:
    """Return how the head is started: it holds no trials, so a busy GPU never starves it."""
    command = [
        *_common(options, release),
        "--head",
        f"--port={GCS_PORT}",
        f"--dashboard-host={options.dashboard_host}",
        "--dashboard-port=8265",
        "--num-cpus=0",
        "--num-gpus=0",
    ]
    if options.autoscaling_config:
        command.append(f"--autoscaling-config={options.autoscaling_config}")
    return command


def worker_command(options: argparse.Namespace, release: Release) -> list[str]:
    """Return how a worker is started; CPUs and GPUs that are not given are counted by Ray."""
    command = [*_common(options, release), f"--address={options.address}"]
    for flag, value in (("--num-cpus", options.num_cpus), ("--num-gpus", options.num_gpus)):
        if value is not None:
            command.append(f"{flag}={value}")
    return command


def _common(options: argparse.Namespace, release: Release) -> list[str]:
    command = ["start", "--disable-usage-stats", f"--labels={release.labels()}"]
    if options.block:
        command.append("--block")
    command.append(f"--object-store-memory={options.object_store_memory}")
    if options.node_ip:
        command.append(f"--node-ip-address={options.node_ip}")
    return command


def _become(command: Sequence[str]) -> None:
    """Replace this process by Ray, so that a container's signals reach it."""
    sys.stderr.write(f"orchestrator {this_release()}: ray {' '.join(command)}\n")
    sys.stderr.flush()
    os.execv(sys.executable, [sys.executable, "-m", "ray.scripts.scripts", *command])


def check_release(own: Release, head: Release) -> None:
    """Refuse to join a head that runs another release.

    Raises:
        PreflightError: It does.
    """
    if own != head:
        text = f"runs release {own}, but the head runs {head}"
        cure = "start all nodes from one image, or install the same commit everywhere"
        raise PreflightError([Problem("this worker", text, cure)])


def wait_for_head(address: str, seconds: float) -> Release:
    """Return the release of the head as soon as it answers.

    Raises:
        PreflightError: It does not within ``seconds``, or refuses the token.
    """
    from ray.exceptions import AuthenticationError, RpcError

    deadline = time.monotonic() + seconds
    while True:
        try:
            if _answers(address):
                for node in _nodes(address):
                    if node.is_head_node and node.state == 0:
                        return Release.of_labels(node.labels)
        except AuthenticationError as error:
            text = "refuses the token of this worker"
            cure = "give all nodes the same ray_token"
            raise PreflightError([Problem(f"the head at {address}", text, cure)]) from error
        except RpcError:
            pass  # it listens but is not ready
        if time.monotonic() > deadline:
            text = f"did not answer within {seconds:g} s"
            cure = "start it first and check that its port can be reached from here"
            raise PreflightError([Problem(f"the head at {address}", text, cure)])
        time.sleep(1)


def _answers(address: str) -> bool:
    """Look whether the port is open: Ray's client waits long for one that is not, and logs it."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=2).close()
    except OSError:
        return False
    return True


def _nodes(address: str) -> list[Any]:
    from ray._raylet import GcsClient  # type: ignore[attr-defined]  # compiled, without stubs

    return list(GcsClient(address=address).get_all_node_info(timeout=5).values())


def _is_alive(address: str, node_ip: str | None) -> bool:
    """Look for this node among the alive ones."""
    from ray.exceptions import RayError

    # A container on several networks has an address on each; Ray knows one of them.
    own = [node_ip] if node_ip else socket.gethostbyname_ex(socket.gethostname())[2]
    try:
        if not _answers(address):
            return False
        nodes = _nodes(address)
    except RayError:
        return False
    return any(node.state == 0 and node.node_manager_address in own for node in nodes)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="orchestrator.deployment.node")
    parser.add_argument("role", choices=["head", "worker", "healthy"])
    default = os.environ.get("ORCHESTRATOR_HEAD", f"127.0.0.1:{GCS_PORT}")
    parser.add_argument("--address", default=default, help="GCS of the head, host:port")
    parser.add_argument("--node-ip", help="address of this node; found out if not given")
    parser.add_argument("--dashboard-host", default="0.0.0.0", help="where the dashboard listens")
    parser.add_argument("--num-cpus", type=_count, help="of a worker; empty to count them")
    parser.add_argument("--num-gpus", type=_count, help="of a worker; empty to count them")
    parser.add_argument("--object-store-memory", type=int, default=200 * 2**20)
    parser.add_argument("--autoscaling-config", help="of a head that 'ray up' starts")
    parser.add_argument("--no-block", dest="block", action="store_false", help="return at once")
    parser.add_argument("--wait", type=float, default=120, help="seconds to wait for the head")
    return parser


def _count(text: str) -> int | None:
    """Read a number; compose passes a variable that is not set as nothing."""
    return int(text) if text else None


if __name__ == "__main__":
    main()
