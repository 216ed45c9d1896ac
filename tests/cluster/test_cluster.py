"""A cluster of several hosts that lose power, and a stranger among them."""

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator.deployment import secrets
from orchestrator.deployment.node import GCS_PORT

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(1200)]

STUDENTS = 16
CONTROLS = 3
SWEEP = [
    "smoke",
    f"--set=search.trials={STUDENTS}",
    "--set=search.early_stopping=null",
    "--set=student.epochs=60",
    # Starting a process is what takes time here, so no stage has more of them than it needs.
    "--set=search.concurrent=3",
    "--set=resources.outputs={cpu: 2}",
    "--set=resources.student={cpu: 1, gpu: 0.5}",
    "--set=confirm={top: 1, seeds: 1}",
]

# Run on the stranger's host, where neither token nor password are.
_RAY_REQUESTS = """
import os, sys, json
os.environ.update(json.loads(sys.argv[1]))
what, address = sys.argv[2:]
try:
    if what == "gcs":
        from ray._raylet import GcsClient
        answer = GcsClient(address=address).get_all_node_info(timeout=10)
    elif what == "jobs":
        from ray.job_submission import JobSubmissionClient
        answer = JobSubmissionClient(address).submit_job(entrypoint="id")
    else:
        import grpc
        from ray.core.generated import ray_client_pb2 as messages, ray_client_pb2_grpc as client
        metadata = [("client_id", "stranger")]
        if os.environ.get("RAY_AUTH_TOKEN"):
            metadata.append(("authorization", "Bearer " + os.environ["RAY_AUTH_TOKEN"]))
        stub = client.RayletDriverStub(grpc.insecure_channel(address))
        question = messages.ClusterInfoRequest(type=messages.ClusterInfoType.PING)
        answer = stub.ClusterInfo(question, timeout=20, metadata=metadata)
except BaseException as error:
    print(type(error).__name__ + ": " + " ".join(str(error).split())[:300])
    sys.exit(7)
print("ANSWERED", answer)
"""


def _http(stack: Any, method: str, url: str, *headers: str, body: str = "{}") -> str:
    """Send a request from the stranger's host; returns the status and the start of the answer."""
    program = (
        "import sys, urllib.request, urllib.error\n"
        "method, url, body, *headers = sys.argv[1:]\n"
        "data = body.encode() if method == 'POST' else None\n"
        "request = urllib.request.Request(url, data, method=method,"
        " headers=dict(h.split(': ', 1) for h in headers))\n"
        "try:\n"
        "    answer = urllib.request.urlopen(request, timeout=20)\n"
        "except urllib.error.HTTPError as error:\n"
        "    answer = error\n"
        "print(answer.status, answer.read(120))\n"
    )
    return str(stack.stranger.run("python", "-c", program, method, url, body, *headers).stdout)


@pytest.mark.brief
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/api/version"),
        ("GET", "/api/jobs/"),
        ("POST", "/api/jobs/"),
        ("DELETE", "/api/jobs/smoke"),
        ("GET", "/nodes?view=summary"),
        ("GET", "/api/v0/tasks"),
        ("GET", "/api/packages/gcs/_ray_pkg_0.zip"),
        ("PUT", "/api/packages/gcs/_ray_pkg_0.zip"),
    ],
)
@pytest.mark.parametrize("headers", [(), ("Authorization: Bearer " + "0" * 64,)])
def test_the_dashboard_refuses_a_stranger(
    stack: Any, figures: dict[str, Any], method: str, path: str, headers: tuple[str, ...]
) -> None:
    answer = _http(stack, method, stack.dashboard + path, *headers)
    figures.setdefault("refused", []).append(f"{method} dashboard{path} {headers}: {answer}")
    assert answer[:3] in ("401", "403"), answer


@pytest.mark.brief
@pytest.mark.parametrize("what", ["gcs", "jobs", "client"])
@pytest.mark.parametrize(
    "login",
    [
        {"RAY_AUTH_MODE": "disabled"},
        {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 64},
    ],
    ids=["no token", "wrong token"],
)
def test_ray_refuses_a_stranger(
    stack: Any, figures: dict[str, Any], what: str, login: dict[str, str]
) -> None:
    gcs = f"{stack.head.ip}:{GCS_PORT}"
    addresses = {"jobs": stack.dashboard, "client": f"{stack.head.ip}:10001"}
    command = ["python", "-c", _RAY_REQUESTS, json.dumps(login), what, addresses.get(what, gcs)]
    done = stack.stranger.run(*command, timeout=120)
    answer = done.stdout.strip().splitlines()[-1]
    figures.setdefault("refused", []).append(f"{what} {login['RAY_AUTH_MODE']}: {answer}")
    assert done.returncode == 7, done.stdout + done.stderr
    assert "unauthenticated" in answer.lower() or "AuthenticationError" in answer, answer


@pytest.mark.brief
@pytest.mark.parametrize("what", ["gcs", "client"])
def test_the_same_requests_are_answered_with_the_token(stack: Any, what: str) -> None:
    address = f"{stack.head.ip}:{GCS_PORT if what == 'gcs' else 10001}"
    token = secrets.read_secret(stack.secrets, secrets.RAY_TOKEN)
    login = json.dumps({"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token})
    done = stack.desk.run("python", "-c", _RAY_REQUESTS, login, what, address, timeout=120)
    assert done.returncode == 0 and "ANSWERED" in done.stdout, done.stdout + done.stderr


@pytest.mark.brief
@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        ("POST", "/api/2.0/mlflow/experiments/search", (), "401"),
        ("POST", "/api/2.0/mlflow/runs/create", (), "401"),
        ("GET", "/api/2.0/mlflow-artifacts/artifacts", (), "401"),
        ("GET", "/", (), "401"),
        ("GET", "/", ("Authorization: Basic YWRtaW46cGFzc3dvcmQxMjM0",), "401"),
        ("POST", "/api/2.0/mlflow/users/create", (), "401"),
        ("GET", "/", ("Host: evil.example",), "403"),
    ],
)
def test_mlflow_refuses_a_stranger(
    stack: Any, figures: dict[str, Any], method: str, path: str, headers: Any, status: str
) -> None:
    headers = ("Content-Type: application/json", *headers)
    answer = _http(stack, method, stack.mlflow + path, *headers)
    figures.setdefault("refused", []).append(f"{method} mlflow{path} {headers[1:]}: {answer}")
    assert answer.startswith(status), answer


@pytest.mark.brief
@pytest.mark.parametrize("role", ["ledger", "mlflow", "postgres"])
def test_postgresql_refuses_a_stranger(stack: Any, figures: dict[str, Any], role: str) -> None:
    done = stack.stranger.run("psql", "-w", "-h", stack.services.ip, "-U", role, "-c", "SELECT 1")
    figures.setdefault("refused", []).append(f"postgresql {role}: {done.stderr.strip()}")
    assert done.returncode == 2
    assert "password" in done.stderr or "no pg_hba.conf entry" in done.stderr


@pytest.mark.brief
def test_a_worker_of_another_release_does_not_join(stack: Any) -> None:
    host = stack.hosts.add("foreign")
    host.give(stack.secrets, secrets.RAY_TOKEN)
    node = ["python", "-m", "orchestrator.deployment.node", "worker"]
    where = ["--address", f"{stack.head.ip}:{GCS_PORT}", "--node-ip", host.ip]
    done = host.run(*node, *where, env={"ORCHESTRATOR_GIT_SHA": "f" * 40})
    assert done.returncode == 3
    assert "runs release" in done.stderr and "start all nodes from one image" in done.stderr


@pytest.mark.brief
def test_a_node_without_a_token_does_not_start(stack: Any) -> None:
    for role in ("head", "worker"):
        done = stack.stranger.run("python", "-m", "orchestrator.deployment.node", role)
        assert done.returncode == 3
        assert "make it with 'orchestrator cluster init'" in done.stderr


@pytest.fixture(scope="module")
def survived(stack: Any, figures: dict[str, Any]) -> dict[str, Any]:
    """A sweep through the loss of a worker and of the head; what was seen on the way."""
    watch = _Watch(stack)
    started = time.monotonic()
    first = stack.folder / "first.log"
    submit = [*("python", "-m", "orchestrator", "cluster", "submit"), *SWEEP]
    submit += ["--address", stack.dashboard]
    terminal = stack.desk.popen(*submit, log=first)
    watch.until(lambda: watch.students() >= 3, 400, "three students")
    stack.hosts["worker1"].cut()
    figures["students when a worker was lost"] = watch.students()
    stack.add_worker("worker3")
    alive = {stack.head.ip, stack.hosts["worker2"].ip, stack.hosts["worker3"].ip}
    figures["seconds until another worker had joined"] = watch.until(
        lambda: alive <= stack.alive(), 240, "the new worker"
    )
    enough = max(6, figures["students when a worker was lost"] + 2)
    watch.until(lambda: watch.students() >= enough, 400, f"{enough} students")
    done_before = watch.complete()
    stack.head.cut()
    assert len(done_before) < STUDENTS  # else the sweep was over, and nothing was tried
    figures["students when the head was lost"] = len(done_before)
    figures["seconds until the terminal said so"] = watch.until(
        lambda: terminal.poll() is not None, 120, "the terminal"
    )
    stack.head.repair()
    stack.start_head()
    figures["seconds until the cluster was back"] = watch.until(
        lambda: stack.alive() == alive, 240, "the cluster with a new head"
    )
    again = stack.orchestrator("submit", *SWEEP, timeout=600)
    figures["seconds in all"] = round(time.monotonic() - started, 1)
    return {
        "first": first.read_text(),
        "first_code": terminal.returncode,
        "again": again,
        "done_before": done_before,
        "watch": watch,
    }


class _Watch:
    """Looks at the cluster from outside while it works, and collects all process arguments."""

    def __init__(self, stack: Any) -> None:
        self._stack = stack
        self.commands: set[bytes] = set()
        self.worker_environments: set[bytes] = set()

    def until(self, ready: Callable[[], bool], seconds: float, what: str) -> float:
        started = time.monotonic()
        while not ready():
            assert time.monotonic() - started < seconds, f"{what}: not within {seconds:g} s"
            self._look()
            time.sleep(1)
        return round(time.monotonic() - started, 1)

    def _look(self) -> None:
        for process in Path("/proc").glob("[0-9]*"):
            try:
                command = (process / "cmdline").read_bytes()
                self.commands.add(command)
                if command.startswith(b"ray::") and b"Supervisor" not in command:
                    self.worker_environments.add((process / "environ").read_bytes())
            except OSError:
                continue  # it has ended

    def complete(self) -> set[str]:
        query = (
            "SELECT trial_id FROM trials JOIN studies USING (study_id) "
            "WHERE study_name LIKE 'smoke/students/%' AND state = 'COMPLETE'"
        )
        return set(self._stack.psql("ledger", query).stdout.split())

    def students(self) -> int:
        return len(self.complete())


def test_a_sweep_survives_the_loss_of_a_worker_and_of_the_head(
    stack: Any, survived: dict[str, Any], figures: dict[str, Any]
) -> None:
    again, watch = survived["again"], survived["watch"]
    assert again.returncode == 0, again.stdout[-3000:] + again.stderr
    assert survived["first_code"] == 1
    assert "submit the same config again and the sweep continues" in survived["first"]
    assert "nodes checked for store, release and checkpoints: 3" in again.stdout
    assert watch.students() == STUDENTS + CONTROLS
    assert survived["done_before"] <= watch.complete()  # no result was lost
    lost = [name for name in watch.complete() if name in survived["done_before"]]
    figures["results kept over the loss of the head"] = len(lost)
    assert f"{STUDENTS + CONTROLS}/{STUDENTS + CONTROLS}" in again.stdout
    runs = _mlflow_students(stack)
    assert len(runs) == STUDENTS + CONTROLS
    assert {run["info"]["status"] for run in runs} == {"FINISHED"}
    figures["runs in MLflow"] = len(runs)


def _mlflow_students(stack: Any) -> list[dict[str, Any]]:
    password = secrets.read_secret(stack.secrets, secrets.MLFLOW_PASSWORD)
    program = (
        "import json, sys\nfrom mlflow import MlflowClient\n"
        "c = MlflowClient(sys.argv[1])\n"
        "e = c.get_experiment_by_name('smoke')\n"
        "runs = c.search_runs([e.experiment_id], \"tags.stage = 'students'\")\n"
        "print(json.dumps([{'info': {'status': r.info.status}} for r in runs]))\n"
    )
    login = {"MLFLOW_TRACKING_USERNAME": "admin", "MLFLOW_TRACKING_PASSWORD": password}
    done = stack.services.run("python", "-W", "ignore", "-c", program, stack.mlflow, env=login)
    assert done.returncode == 0, done.stderr
    return list(json.loads(done.stdout.splitlines()[-1]))


def test_no_secret_is_in_any_file_argument_or_trial(
    stack: Any, survived: dict[str, Any], hosts: Any, figures: dict[str, Any]
) -> None:
    values = {}
    for name in secrets.NAMES:
        value = (stack.secrets / name).read_text().strip()
        values[name] = value.rpartition(":")[2].encode()
    places = [*_files(stack.folder), *_files(stack.head.folder.parent), *_files(stack.databases)]
    texts = {str(path): path.read_bytes() for path in places}
    watch = survived["watch"]
    texts |= {f"arguments {n}": text for n, text in enumerate(watch.commands)}
    figures["files searched for secrets"] = len(places)
    figures["command lines searched for secrets"] = len(watch.commands)
    assert len(places) > 500 and len(watch.worker_environments) > 2  # it looked at something
    found = [(where, name) for where, text in texts.items() for name in _named(values, text)]
    assert found == []
    for environment in watch.worker_environments:
        assert _named(values, environment) == []


def _named(values: dict[str, bytes], text: bytes) -> list[str]:
    return [name for name, value in values.items() if value in text]


def _files(folder: Path) -> Iterator[Path]:
    """Yield all regular files but the secrets themselves."""
    for path in folder.rglob("*"):
        if "secrets" not in path.parts and path.is_file() and not path.is_symlink():
            yield path


def test_jobs_stop_like_ctrl_c_and_can_be_followed_again(stack: Any, survived: Any) -> None:
    done = stack.orchestrator("submit", *SWEEP, "--set=name=other", "--detach")
    assert done.returncode == 0, done.stderr
    second = stack.orchestrator("submit", *SWEEP, "--set=name=other", "--detach")
    assert second.returncode == 2 and "is running as job other-" in second.stderr
    time.sleep(20)
    stopped = stack.orchestrator("stop", "other", timeout=240)
    assert stopped.returncode == 0, stopped.stderr
    seen = stack.orchestrator("logs", "other")
    assert seen.returncode == 130
    assert "the same command continues" in seen.stdout
    # Ended by itself, not killed after Ray's patience: the lock on the sweep is given back.
    locks = stack.psql("ledger", "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'")
    assert locks.stdout.strip() == "0"
