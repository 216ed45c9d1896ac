from pathlib import Path

import pytest

from orchestrator.deployment import job, secrets
from orchestrator.errors import PreflightError

CLUSTER = {
    "ORCHESTRATOR_HOME": "/store/home",
    "LEDGER_URL": "postgresql+psycopg://ledger@postgres/ledger",
    "ORCHESTRATOR_TRACKING_URI": "http://mlflow:5000",
}


def _config(folder: Path, text: str = "") -> str:
    (folder / "sweep.yaml").write_text("name: news\n" + text)
    return str(folder / "sweep.yaml")


def test_a_config_gets_what_the_cluster_has(tmp_path: Path) -> None:
    assert job.cluster_defaults(_config(tmp_path), CLUSTER) == [
        *("--set", "ledger.url_env=LEDGER_URL"),
        *("--set", "tracking.uri=http://mlflow:5000"),
    ]


def test_what_a_config_says_is_kept(tmp_path: Path) -> None:
    text = "ledger: {url_env: MINE}\ntracking: {uri: 'http://other'}\n"
    assert job.cluster_defaults(_config(tmp_path, text), CLUSTER) == []
    assert job.cluster_defaults(_config(tmp_path), {}) == []
    assert job.cluster_defaults(_config(tmp_path, "ledger: null\n"), {}) == []


def test_the_driver_logs_in_with_files(tmp_path: Path) -> None:
    secrets.make_secrets(tmp_path)
    environment = dict(CLUSTER)
    job.log_in(tmp_path, environment)
    assert environment["PGPASSFILE"] == str(tmp_path / secrets.LEDGER_PASSFILE)
    assert environment["MLFLOW_TRACKING_USERNAME"] == "admin"
    password = (tmp_path / secrets.MLFLOW_PASSWORD).read_text()
    assert environment["MLFLOW_TRACKING_PASSWORD"] == password


def test_a_head_without_databases_needs_no_secrets(tmp_path: Path) -> None:
    environment = {"ORCHESTRATOR_HOME": "/store/home"}
    job.log_in(tmp_path, environment)
    assert environment == {"ORCHESTRATOR_HOME": "/store/home"}


def test_a_home_that_nobody_shares_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PreflightError, match="set it to a folder that all see"):
        job.log_in(tmp_path, {})


def test_a_missing_password_is_told(tmp_path: Path) -> None:
    with pytest.raises(PreflightError, match="ledger_passfile"):
        job.log_in(tmp_path, dict(CLUSTER))
