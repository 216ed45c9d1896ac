import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from orchestrator.cli import app
from orchestrator.deployment import secrets, verbs
from orchestrator.deployment.jobs import Job, NodeState
from orchestrator.deployment.release import Release
from orchestrator.errors import OrchestratorError, PreflightError

HEAD = NodeState("10.0.0.1", True, 0, 0, Release("0.1.0", "a" * 40))
WORKER = NodeState("10.0.0.2", False, 8, 1, Release("0.1.0", "a" * 40))


class _Cluster:
    """Stands in for the Jobs API; remembers what was sent."""

    def __init__(self, *nodes: NodeState, status: str = "SUCCEEDED", code: int = 0) -> None:
        self._nodes = nodes
        self._job = Job("news-1", "news", status, code, 1.0, "why")
        self.sent: dict[str, str] = {}

    def nodes(self) -> list[NodeState]:
        return list(self._nodes)

    def jobs(self) -> list[Job]:
        return [self._job]

    def find(self, identifier: str | None) -> Job:
        return self._job

    def submit(self, sweep: str, folder: Path) -> str:
        self.sent = {path.name: path.read_text() for path in folder.iterdir() if path.is_file()}
        return f"{sweep}-1"

    def follow(self, identifier: str, write: Any) -> Job:
        write("a line of the sweep\n")
        return self._job


def _run(monkeypatch: pytest.MonkeyPatch, cluster: _Cluster, *arguments: str) -> Any:
    monkeypatch.setattr(verbs, "_cluster", lambda address, folder: cluster)
    return CliRunner().invoke(app, ["cluster", *arguments])


def test_init_makes_secrets_and_shows_none(tmp_path: Path) -> None:
    for told in ("made 5 secrets, kept 0", "made 0 secrets, kept 5"):
        done = CliRunner().invoke(app, ["cluster", "init", "--secrets", str(tmp_path / "s")])
        assert done.exit_code == 0 and told in done.output
        for name in secrets.NAMES:
            assert (tmp_path / "s" / name).read_text().strip() not in done.output


def test_status_shows_nodes_jobs_and_where_mlflow_is(monkeypatch: pytest.MonkeyPatch) -> None:
    done = _run(monkeypatch, _Cluster(HEAD, WORKER), "status")
    assert "10.0.0.2" in done.output and "8 CPU  1 GPU" in done.output
    assert "news-1  SUCCEEDED" in done.output and "mlflow_admin_password" in done.output
    document = json.loads(_run(monkeypatch, _Cluster(HEAD, WORKER), "status", "--json").stdout)
    assert [node["head"] for node in document["nodes"]] == [True, False]
    assert document["jobs"][0]["exit_code"] == 0


@pytest.mark.parametrize(("status", "code"), [("SUCCEEDED", 0), ("FAILED", 4)])
def test_submit_sends_the_config_and_exits_as_the_sweep(
    monkeypatch: pytest.MonkeyPatch, status: str, code: int
) -> None:
    cluster = _Cluster(HEAD, status=status, code=code)
    done = _run(monkeypatch, cluster, "submit", "smoke", "--set", "name=news")
    assert done.exit_code == code
    assert "a line of the sweep" in done.output
    assert "orchestrator cluster logs news-1" in done.output
    assert "name: news" in cluster.sent["sweep.yaml"]


def test_a_detached_sweep_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    done = _run(monkeypatch, _Cluster(HEAD, status="FAILED", code=4), "submit", "smoke", "--detach")
    assert done.exit_code == 0 and "a line" not in done.output


def test_up_does_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(verbs, "_cluster", lambda address, folder: _Cluster(HEAD))
    with pytest.raises(OrchestratorError, match="0 of 2 workers have joined"):
        verbs._await_workers(None, tmp_path, 2, 0)


def test_without_a_token_no_verb_asks_a_cluster(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    monkeypatch.delenv("RAY_AUTH_TOKEN_PATH", raising=False)
    done = CliRunner().invoke(app, ["cluster", "logs", "--secrets", str(tmp_path)])
    assert isinstance(done.exception, PreflightError)
