"""The whole compose file, started for real: two workers, one of them killed in a sweep."""

import base64
import json
import os
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from orchestrator.deployment import secrets

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(1800)]

ROOT = Path(__file__).parents[2]
PROJECT = "kdocompose"
DASHBOARD, MLFLOW = 18265, 15000
SWEEP = [
    "smoke",
    "--set=search.trials=12",
    "--set=search.early_stopping=null",
    "--set=search.concurrent=2",
    "--set=student.epochs=40",
    "--set=confirm={top: 1, seeds: 1}",
]


@dataclass
class Stack:
    """The running containers and what was measured of them."""

    secrets: Path
    environment: dict[str, str]
    figures: dict[str, Any] = field(default_factory=dict)

    def command(self, verb: str, *arguments: str) -> list[str]:
        where = {"up": ["--project", str(ROOT)], "down": ["--project", str(ROOT)]}.get(verb, [])
        if verb != "down":
            where += ["--address", f"http://127.0.0.1:{DASHBOARD}"]
        return [sys.executable, "-m", "orchestrator", "cluster", verb, *arguments, *where]

    def run(self, verb: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        started = time.monotonic()
        done = subprocess.run(
            self.command(verb, *arguments),
            capture_output=True,
            text=True,
            check=False,
            env=self.environment,
        )
        self.figures[f"seconds of {verb}"] = round(time.monotonic() - started, 1)
        return done


def _docker(*arguments: str) -> str:
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, check=True)
    return done.stdout


def _obstacle() -> str:
    if shutil.which("docker") is None:
        return "needs docker"
    if subprocess.run(["docker", "info"], capture_output=True, check=False).returncode:
        return "the docker daemon does not answer"
    return ""


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    if reason := _obstacle():
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("compose") / "secrets"
    environment = {
        **os.environ,
        "COMPOSE_PROJECT_NAME": PROJECT,
        "ORCHESTRATOR_SECRETS": str(folder),
        "ORCHESTRATOR_DASHBOARD_PORT": str(DASHBOARD),
        "ORCHESTRATOR_MLFLOW_PORT": str(MLFLOW),
        "ORCHESTRATOR_WORKER_CPUS": "2",
        "PYTHONPATH": str(ROOT),
    }
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_ADDRESS"):
        environment.pop(name, None)
    stack = Stack(folder, environment)
    try:
        done = stack.run("up", "--workers", "2", "--wait", "900")
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        yield stack
    finally:
        done = stack.run("down", "--volumes")
        sys.stdout.write(json.dumps(stack.figures, indent=1) + "\n")
    assert done.returncode == 0, done.stderr
    left = ["--filter", f"label=com.docker.compose.project={PROJECT}", "-q"]
    assert _docker("ps", "-a", *left) == _docker("volume", "ls", *left) == ""


@pytest.fixture(scope="module")
def finished(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A sweep in which one of the two workers is killed; what the terminal showed."""
    log = tmp_path_factory.mktemp("sweep") / "log"
    started = time.monotonic()
    with log.open("wb") as file:
        terminal = subprocess.Popen(
            stack.command("submit", *SWEEP),
            stdout=file,
            stderr=subprocess.STDOUT,
            env=stack.environment,
        )
    while "[students 3/" not in log.read_text():
        assert terminal.poll() is None and time.monotonic() - started < 900, log.read_text()
        time.sleep(1)
    victim = _containers("ray-worker")[0]
    _docker("kill", victim)
    stack.figures["seconds until a worker was killed"] = round(time.monotonic() - started, 1)
    assert terminal.wait(timeout=900) == 0, log.read_text()[-4000:]
    stack.figures["seconds of the sweep"] = round(time.monotonic() - started, 1)
    return log.read_text()


def _containers(service: str = "") -> list[str]:
    filters = ["--filter", f"label=com.docker.compose.project={PROJECT}"]
    if service:
        filters += ["--filter", f"label=com.docker.compose.service={service}"]
    return _docker("ps", "-q", *filters).split()


def test_two_workers_join_a_head_that_holds_no_trials(stack: Stack) -> None:
    nodes = json.loads(stack.run("status", "--json").stdout)["nodes"]
    assert [(node["head"], node["cpu"]) for node in nodes] == [(True, 0), (False, 2), (False, 2)]
    assert len({json.dumps(node["release"]) for node in nodes}) == 1


def test_containers_are_healthy_and_not_root(stack: Stack) -> None:
    containers = _containers()
    assert len(containers) == 5
    for container in containers:
        deadline = time.monotonic() + 180
        while (found := _inspect(container)["State"]["Health"]["Status"]) == "starting":
            assert time.monotonic() < deadline
            time.sleep(2)
        assert found == "healthy", _inspect(container)["State"]["Health"]
        assert _docker("exec", container, "id", "-u").strip() != "0"


def _inspect(container: str) -> Any:
    return json.loads(_docker("inspect", container))[0]


def test_ports_are_published_on_loopback_only(stack: Stack) -> None:
    published = [
        binding["HostIp"]
        for container in _containers()
        for bindings in _inspect(container)["NetworkSettings"]["Ports"].values()
        for binding in bindings or ()
    ]
    assert published == ["127.0.0.1"] * 2


def test_a_worker_cannot_reach_the_databases(stack: Stack) -> None:
    program = "import socket; socket.create_connection(('postgres', 5432), 5)"
    for service, code in (("ray-head", 0), ("ray-worker", 1)):
        container = _containers(service)[0]
        command = ["docker", "exec", container, "python", "-c", program]
        assert subprocess.run(command, capture_output=True, check=False).returncode == code


def test_a_sweep_ends_complete_though_a_worker_is_killed(finished: str, stack: Stack) -> None:
    assert "[students 15/15]" in finished
    assert "nodes checked for store, release and checkpoints: 3" in finished
    done = stack.run("status", "--json")
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)["nodes"]) == 2


def test_mlflow_shows_the_runs_to_its_admin_only(finished: str, stack: Stack) -> None:
    url = f"http://127.0.0.1:{MLFLOW}/api/2.0/mlflow/experiments/get-by-name"
    request = urllib.request.Request(f"{url}?experiment_name=smoke")
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(request, timeout=20)
    password = secrets.read_secret(stack.secrets, secrets.MLFLOW_PASSWORD)
    login = base64.b64encode(f"admin:{password}".encode()).decode()
    request.add_header("Authorization", f"Basic {login}")
    experiment = json.load(urllib.request.urlopen(request, timeout=20))["experiment"]
    body = {"experiment_ids": [experiment["experiment_id"]], "filter": "tags.stage = 'students'"}
    search = urllib.request.Request(
        f"http://127.0.0.1:{MLFLOW}/api/2.0/mlflow/runs/search",
        json.dumps(body).encode(),
        {"Authorization": f"Basic {login}", "Content-Type": "application/json"},
    )
    runs = json.load(urllib.request.urlopen(search, timeout=20))["runs"]
    stack.figures["runs in MLflow"] = len(runs)
    assert len(runs) == 15
    assert {run["info"]["status"] for run in runs} == {"FINISHED"}


def test_containers_and_their_logs_hold_no_secret(finished: str, stack: Stack) -> None:
    texts = []
    for container in _containers():
        texts += [_docker("inspect", container), _docker("top", container, "-eo", "pid,args")]
        command = ["docker", "logs", container]
        logs = subprocess.run(command, capture_output=True, text=True, check=True)
        texts.append(logs.stdout + logs.stderr)
    assert len(texts) == 12
    for name in secrets.NAMES:
        value = (stack.secrets / name).read_text().strip().rpartition(":")[2]
        assert not [text for text in texts if value in text], name
