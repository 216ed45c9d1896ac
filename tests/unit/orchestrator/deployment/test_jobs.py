import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from orchestrator.deployment import jobs, secrets
from orchestrator.deployment.jobs import Cluster, Job
from orchestrator.errors import Interrupted, OrchestratorError, PreflightError, UsageError

LOG = ["one\n", "two\n", "three\n"]


def _details(number: int, status: str, sweep: str = "news", code: int | None = None) -> Any:
    return SimpleNamespace(
        submission_id=f"{sweep}-{number}",
        status=SimpleNamespace(value=status),
        metadata={"sweep": sweep} if sweep else {},
        driver_exit_code=code,
        start_time=number * 1000,
        message="first line\nsecond line",
    )


class _Client:
    """A Jobs API that breaks the connection after each piece of the log."""

    def __init__(self, *details: Any) -> None:
        self.details = list(details)
        self.sent: list[dict[str, Any]] = []
        self.pieces = 0

    def list_jobs(self) -> list[Any]:
        return self.details

    def submit_job(self, **options: Any) -> str:
        self.sent.append(options)
        return str(options["submission_id"])

    async def tail_job_logs(self, identifier: str) -> AsyncIterator[str]:
        self.pieces += 1
        for piece in LOG[: self.pieces]:
            yield piece
        if self.pieces < len(LOG):
            raise RuntimeError("the connection closed unexpectedly")
        self.details = [_details(1, "FAILED", code=4)]


def _cluster(monkeypatch: pytest.MonkeyPatch, client: Any) -> Cluster:
    monkeypatch.setattr(jobs, "_RETRY_SECONDS", 0.01)
    monkeypatch.setattr(Cluster, "_probe", lambda self: None)
    cluster = Cluster.__new__(Cluster)
    cluster.address = "http://10.0.0.1:8265"
    cluster._client = client
    return cluster


def test_a_broken_connection_repeats_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = _cluster(monkeypatch, _Client(_details(1, "RUNNING")))
    heard: list[str] = []
    job = cluster.follow("news-1", heard.append)
    assert "".join(heard) == "".join(LOG)
    assert (job.status, jobs.exit_code(job)) == ("FAILED", 4)


def test_a_lost_cluster_is_told_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    client = _Client()

    def refuse() -> list[Any]:
        raise ConnectionError("refused")

    monkeypatch.setattr(client, "list_jobs", refuse)
    cluster = _cluster(monkeypatch, client)
    started = time.monotonic()
    with pytest.raises(OrchestratorError, match="submit the same config again"):
        cluster.follow("news-1", lambda text: None, patience=0.2)
    assert 0.2 < time.monotonic() - started < 5


def test_a_head_that_vanishes_without_a_word_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    class Silent(_Client):
        async def tail_job_logs(self, identifier: str) -> AsyncIterator[str]:
            yield "one\n"
            await asyncio.sleep(3600)  # nothing comes, and nothing is closed

    client = Silent(_details(1, "RUNNING"))
    cluster = _cluster(monkeypatch, client)
    heard: list[str] = []

    def probe(self: Cluster) -> None:
        if heard:
            raise TimeoutError("no answer")

    monkeypatch.setattr(jobs, "_PROBE_SECONDS", 0.05)
    monkeypatch.setattr(Cluster, "_probe", probe)
    with pytest.raises(OrchestratorError, match="submit the same config again"):
        cluster.follow("news-1", heard.append, patience=0.2)
    assert heard == ["one\n"]


def test_ctrl_c_leaves_the_sweep_running(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(text: str) -> None:
        raise KeyboardInterrupt

    cluster = _cluster(monkeypatch, _Client(_details(1, "RUNNING")))
    with pytest.raises(Interrupted, match="cluster logs news-1' comes back"):
        cluster.follow("news-1", interrupt)


def test_a_job_is_found_by_its_id_its_sweep_or_as_the_latest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    details = [
        _details(3, "RUNNING", "spam"),
        _details(1, "FAILED"),
        _details(2, "RUNNING"),
        _details(9, "RUNNING", ""),
    ]
    cluster = _cluster(monkeypatch, _Client(*details))
    assert [job.id for job in cluster.jobs()] == ["news-1", "news-2", "spam-3"]
    found = [cluster.find(name).id for name in (None, "news", "news-1")]
    assert found == ["spam-3", "news-2", "news-1"]
    with pytest.raises(UsageError, match=r"no job 'old'.*news-1, news-2, spam-3"):
        cluster.find("old")


def test_a_sweep_is_sent_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    client = _Client(_details(1, "FAILED"))
    cluster = _cluster(monkeypatch, client)
    identifier = cluster.submit("news", tmp_path)
    assert identifier.startswith("news-2")
    (sent,) = client.sent
    assert sent["entrypoint"] == "python -m orchestrator.deployment.job sweep.yaml"
    assert sent["runtime_env"] == {"working_dir": str(tmp_path)}  # and no environment variables
    client.details = [_details(2, "PENDING")]
    with pytest.raises(UsageError, match="is running as job news-2; follow it"):
        cluster.submit("news", tmp_path)


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [
        ("SUCCEEDED", 0, 0),
        ("FAILED", 3, 3),
        ("FAILED", -9, 1),
        ("FAILED", None, 1),
        ("STOPPED", None, 130),
    ],
)
def test_the_terminal_exits_as_the_sweep_did(status: str, code: int | None, expected: int) -> None:
    assert jobs.exit_code(Job("news-1", "news", status, code, 0, "")) == expected


def test_no_cluster_is_asked_without_a_token(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("RAY_AUTH_TOKEN_PATH", raising=False)
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    with pytest.raises(PreflightError, match="cluster init"):
        Cluster(None, tmp_path)


def test_a_cluster_that_is_not_there_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    secrets.make_secrets(tmp_path)
    for name in ("RAY_AUTH_TOKEN_PATH", "RAY_RUNTIME_ENV_IGNORE_GITIGNORE"):
        monkeypatch.setenv(name, "")  # so that what the call sets is undone
    with pytest.raises(OrchestratorError, match=r"no cluster answers at http://127\.0\.0\.1:9;"):
        Cluster("http://127.0.0.1:9", tmp_path)


def test_a_dead_node_does_not_hide_the_alive_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray 2.60 answers so after a worker was lost: what the filter left out counts as missing."""
    from ray.util.state.api import StateApiClient

    nodes = [
        {"node_id": f"{number}", "node_ip": f"10.0.0.{number}", "is_head_node": number == 2}
        | {"state": "ALIVE", "resources_total": {"CPU": 2.0}, "labels": {}}
        | {"node_name": "", "state_message": None}
        for number in (1, 2)
    ]
    answer = {"result": nodes, "total": 3, "num_after_truncation": 2, "num_filtered": 2}
    monkeypatch.setattr(StateApiClient, "__init__", lambda self, address: None)
    monkeypatch.setattr(StateApiClient, "_make_http_get_request", lambda *a, **k: answer)
    found = _cluster(monkeypatch, _Client()).nodes()
    assert [(node.address, node.head) for node in found] == [
        ("10.0.0.2", True),
        ("10.0.0.1", False),
    ]
