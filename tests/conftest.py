"""Fixtures that several folders share: one Ray cluster and one smoke sweep for the whole run."""

import importlib.util
import json
import os
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

# Ray reads it when it is imported, and a test module may do that before orchestrator.cluster.
os.environ.setdefault("RAY_AUTH_MODE", "token")

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def orchestrator() -> Run:
    """Run the real command line: ``orchestrator("report", "--json", cwd=...)``."""

    def run(*arguments: str | Path, timeout: float = 600, **options: Any) -> Any:
        command = [sys.executable, "-m", "orchestrator", *map(str, arguments)]
        environment = {**os.environ, **options.pop("env", {})}
        return subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
            env=environment,
            **options,
        )

    return run


@dataclass(frozen=True)
class Smoke:
    """A finished smoke sweep: where it is and what it printed."""

    home: Path
    report: dict[str, Any]
    log: str


@pytest.fixture(scope="session")
def smoke(tmp_path_factory: pytest.TempPathFactory, orchestrator: Run) -> Smoke:
    """Run the smoke preset once through the command line. Tests must not change its home."""
    home = tmp_path_factory.mktemp("smoke") / "home"
    done = orchestrator("sweep", "smoke", "--home", home, "--cpus", "2", "--json")
    assert done.returncode == 0, done.stderr
    return Smoke(home, json.loads(done.stdout), done.stderr)


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """Start a process that speaks S3, and return its address."""
    process = subprocess.Popen(
        [sys.executable, Path(__file__).with_name("s3_server.py")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None and process.stdout is not None
    yield process.stdout.readline().strip()
    process.stdin.close()
    process.wait(20)
    process.stdout.close()


@pytest.fixture
def s3(s3_server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the URL of an empty place; this process and its children may use it."""
    import s3fs

    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "nobody")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "5ecretOfTheTests")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("ORCHESTRATOR_CACHE", str(tmp_path / "cache"))
    bucket = f"bucket-{uuid.uuid4().hex}"
    s3fs.S3FileSystem().mkdir(bucket)
    return f"s3://{bucket}/distilled"


@pytest.fixture(scope="module")
def postgres_server() -> Iterator[Any]:
    """A running PostgreSQL server; tests that crash it start it again."""
    spec = importlib.util.spec_from_file_location(
        "postgres_server", Path(__file__).with_name("postgres_server.py")
    )
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if reason := module.PostgresServer.obstacle():
        pytest.skip(reason)
    server = module.PostgresServer()
    server.start()
    yield server
    server.close()


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[list[Any]]:
    """Start one local cluster of 2 CPUs and 2 logical GPUs for all tests that need Ray."""
    from orchestrator.cluster import connect

    with connect(cpus=2, gpus=2, python_path=str(Path(__file__).parent)) as nodes:
        yield nodes
