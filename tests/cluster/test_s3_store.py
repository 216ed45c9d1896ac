"""Hosts that share no folder: the artifacts are in a bucket, each host keeps copies."""

import json
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from orchestrator.deployment import secrets

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(1200)]

STUDENTS, CONTROLS = 8, 3
SWEEP = [
    "sweep",
    "smoke",
    "--address=auto",
    "--store=s3://bucket/distilled",
    "--set=name=elsewhere",
    f"--set=search.trials={STUDENTS}",
    "--set=search.early_stopping=null",
    "--set=student.epochs=60",
    "--set=search.concurrent=3",
    "--set=resources.outputs={cpu: 2}",
    "--set=resources.student={cpu: 1, gpu: 0.5}",
    "--set=confirm={top: 1, seeds: 1}",
]


def test_a_sweep_over_a_bucket_survives_the_loss_of_a_host(
    stack: Any, figures: dict[str, Any]
) -> None:
    stack.start_s3()
    for name in ("alone1", "alone2"):
        stack.add_worker(name, shared=False)
    alone = [stack.hosts[name] for name in ("alone1", "alone2")]
    _until(lambda: {host.ip for host in alone} <= stack.alive(), "two hosts without the folder")
    home = stack.folder / "home-beside-a-bucket"
    started = time.monotonic()
    job = _Job(stack, [*SWEEP, f"--home={home}"])
    _until(lambda: _finished(stack, home) >= 3 or job.over, "three students", job)
    before = _finished(stack, home)
    alone[0].cut()
    job.wait(600)
    figures["over a bucket"] = {
        "students when a host was lost": before,
        "students": _finished(stack, home),
        "seconds in all": round(time.monotonic() - started, 1),
        "copies of artifacts on the other host": len(_copies(alone[1])),
    }
    assert job.done.returncode == 0, job.done.stdout[-3000:] + job.done.stderr[-2000:]
    assert 3 <= before < STUDENTS  # else nothing was tried
    assert _finished(stack, home) == STUDENTS + CONTROLS
    assert not list((home / "store").glob("*/??/*/manifest.json"))  # nothing beside the bucket
    assert {path.parts[-4] for path in _copies(alone[1])} >= {"outputs", "student"}  # it worked


class _Job:
    """A command that runs on the head as a job of Ray; ``ray job submit`` follows it."""

    def __init__(self, stack: Any, arguments: list[str]) -> None:
        login = {
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(stack.desk.secrets / secrets.RAY_TOKEN),
        }
        submit = ["ray", "job", "submit", f"--address={stack.dashboard}", "--"]
        command = [*submit, "python", "-m", "orchestrator", *arguments]
        self._thread = threading.Thread(
            target=lambda: setattr(self, "done", stack.desk.run(*command, env=login, timeout=900))
        )
        self.done: subprocess.CompletedProcess[str]
        self._thread.start()

    @property
    def over(self) -> bool:
        return not self._thread.is_alive()

    def wait(self, seconds: float) -> None:
        self._thread.join(seconds)
        assert self.over, f"the sweep did not end within {seconds:g} s"


def _finished(stack: Any, home: Path) -> int:
    command = ["python", "-m", "orchestrator", "status", "elsewhere", "--json", f"--home={home}"]
    done = stack.desk.run(*command)
    if done.returncode:
        return 0
    stages = {stage["stage"]: stage for stage in json.loads(done.stdout)["stages"]}
    return int(stages["students"]["states"].get("complete", 0)) if "students" in stages else 0


def _copies(host: Any) -> list[Path]:
    return list(
        (host.folder / "home" / ".cache" / "kd-orchestrator").glob("*/*/??/*/manifest.json")
    )


def _until(ready: Any, what: str, job: _Job | None = None) -> None:
    deadline = time.monotonic() + 400
    while not ready():
        assert time.monotonic() < deadline, f"{what}: not within 400 s"
        time.sleep(1)
    assert job is None or not job.over, job.done.stdout[-3000:] + job.done.stderr
