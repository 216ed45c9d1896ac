import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from orchestrator.deployment import secrets
from orchestrator.deployment.compose import Compose
from orchestrator.errors import OrchestratorError, PreflightError

ROOT = Path(__file__).parents[4]
FILE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
NODES = ("ray-head", "ray-worker", "ray-worker-gpu")


class _Docker:
    """Stands in for the two commands; remembers what it was told."""

    def __init__(self, code: int = 0) -> None:
        self.code = code
        self.calls: list[tuple[list[str], dict[str, Any]]] = []

    def __call__(self, command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        self.calls.append((command, options))
        is_probe = command[-1] == "version"
        return subprocess.CompletedProcess(command, 0 if is_probe else self.code)


@pytest.fixture
def docker(monkeypatch: pytest.MonkeyPatch) -> _Docker:
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}")
    return _Docker()


def test_up_scales_the_workers_and_passes_no_secret(docker: _Docker, tmp_path: Path) -> None:
    secrets.make_secrets(tmp_path)
    Compose(ROOT, tmp_path, docker).up(2)
    command, options = docker.calls[-1]
    assert command[-4:] == ["up", "-d", "--scale", "ray-worker=2"]
    assert options["env"]["ORCHESTRATOR_SECRETS"] == str(tmp_path)
    values = {(tmp_path / name).read_text().strip() for name in secrets.NAMES}
    assert not values & {*command, *options["env"].values()}


def test_gpu_workers_take_the_place_of_the_others(docker: _Docker, tmp_path: Path) -> None:
    Compose(ROOT, tmp_path, docker).up(1, gpu=True)
    command = docker.calls[-1][0]
    assert command[-5:] == ["-d", "--scale", "ray-worker-gpu=1", "--scale", "ray-worker=0"]
    assert command[command.index("--profile") + 1] == "gpu"


def test_down_keeps_the_data_unless_told(docker: _Docker, tmp_path: Path) -> None:
    compose = Compose(ROOT, tmp_path, docker)
    compose.down()
    assert docker.calls[-1][0][-1] == "down"
    compose.down(volumes=True)
    assert docker.calls[-1][0][-2:] == ["down", "--volumes"]


def test_the_failure_of_compose_is_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("shutil.which", lambda name: name)
    with pytest.raises(OrchestratorError, match=r"up -d .* failed; see above"):
        Compose(ROOT, tmp_path, _Docker(code=1)).up(1)


def test_without_docker_or_a_compose_file_it_says_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(PreflightError, match="run this in a checkout"):
        Compose(tmp_path, tmp_path)
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(PreflightError, match="apt-get install"):
        Compose(ROOT, tmp_path)


def test_ports_are_open_to_this_machine_only() -> None:
    ports = {name: service.get("ports", []) for name, service in FILE["services"].items()}
    assert all(port.startswith("127.0.0.1:") for published in ports.values() for port in published)
    assert sorted(name for name, published in ports.items() if published) == ["mlflow", "ray-head"]


def test_workers_have_the_token_and_no_way_to_the_databases() -> None:
    for name in ("ray-worker", "ray-worker-gpu"):
        assert FILE["services"][name]["secrets"] == [secrets.RAY_TOKEN]
        assert FILE["services"][name]["networks"] == ["ray"]
    assert FILE["networks"]["data"]["internal"] is True
    assert FILE["services"]["postgres"]["networks"] == ["data"]


def test_every_service_is_locked_down_and_looked_after() -> None:
    assert len(FILE["services"]) == 5
    for name, service in FILE["services"].items():
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["restart"] == "unless-stopped" and service["shm_size"], name
        assert service["healthcheck"]["test"][0] == "CMD", name
        assert "privileged" not in service and "user" not in service, name
    for name in NODES:
        assert FILE["services"][name]["environment"]["RAY_AUTH_MODE"] == "token"


def test_secrets_are_those_that_init_makes() -> None:
    assert sorted(FILE["secrets"]) == sorted(secrets.NAMES)
    for name, secret in FILE["secrets"].items():
        assert secret == {"file": f"${{ORCHESTRATOR_SECRETS:-./.secrets}}/{name}"}


def test_the_image_runs_as_the_owner_of_the_secrets() -> None:
    text = (ROOT / "Dockerfile").read_text()
    assert f"ARG UID={secrets.IMAGE_UID}" in text
    stages = {stage.partition("\n")[0]: stage for stage in text.split("\nFROM ")[1:]}
    for name in ("runtime", "postgres"):
        assert "\nUSER orchestrator\n" in stages[f"user AS {name}"]


@pytest.mark.skipif(shutil.which("docker-compose") is None, reason="needs docker-compose")
@pytest.mark.parametrize("slip", ["", "  typo: {}\n", "    cap_dorp: [ALL]\n"])
def test_the_file_follows_the_compose_specification(tmp_path: Path, slip: str) -> None:
    secrets.make_secrets(tmp_path / "secrets")
    text = (ROOT / "docker-compose.yml").read_text()
    (tmp_path / "docker-compose.yml").write_text(
        text.replace("  postgres:\n", f"  postgres:\n{slip}")
    )
    command = ["docker-compose", "-f", str(tmp_path / "docker-compose.yml"), "config", "-q"]
    environment = {**os.environ, "ORCHESTRATOR_SECRETS": str(tmp_path / "secrets")}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert (done.returncode == 0) == (slip == ""), done.stderr
