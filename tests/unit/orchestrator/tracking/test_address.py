import sqlite3
import sys
from pathlib import Path

import pytest

from orchestrator.tracking.address import (
    explain,
    one_line,
    redacted,
    relocate,
    resolve_uri,
)
from orchestrator.tracking.ui import ui_command


def test_the_default_is_a_database_in_the_home(tmp_path: Path) -> None:
    assert resolve_uri(tmp_path) == f"sqlite:///{tmp_path}/mlflow.db"
    assert resolve_uri(tmp_path, "http://mlflow:5000") == "http://mlflow:5000"


def test_the_ui_opens_the_right_store(tmp_path: Path) -> None:
    command = ui_command(tmp_path, port=5050)
    assert command[:4] == [sys.executable, "-m", "mlflow", "server"]
    options = dict(zip(command[4::2], command[5::2], strict=True))
    assert options == {
        "--backend-store-uri": f"sqlite:///{tmp_path}/mlflow.db",
        "--artifacts-destination": f"{tmp_path}/mlartifacts",
        "--host": "127.0.0.1",
        "--port": "5050",
        "--workers": "1",
    }
    assert ui_command(tmp_path, "https://mlflow.example.org") == []


@pytest.mark.parametrize(
    ("status", "text", "expected"),
    [
        (401, "", "wants a login; set MLFLOW_TRACKING_USERNAME"),
        (403, "possible DNS rebinding", "--allowed-hosts"),
        (500, "Max retries exceeded ... Connection refused", "is the MLflow server running?"),
        (500, "Max retries exceeded (too many 500 error responses)", "server's log"),
        (500, "failed with timeout exception", "takes longer than 10 s"),
        (500, "database\nis locked", "http://h: database is locked"),
    ],
)
def test_explanations_name_the_cure(status: int, text: str, expected: str) -> None:
    assert expected in explain(status, text, "http://h")


def test_passwords_are_not_shown() -> None:
    assert redacted("see http://me:secret@host:5000/x") == "see http://host:5000/x"
    assert "secret" not in explain(500, "http://me:secret@host down", "http://me:secret@host")
    assert len(one_line("a b\n" * 500)) == 200


def make_database(path: Path, *uris: str) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE experiments (artifact_location TEXT)")
        connection.execute("CREATE TABLE runs (artifact_uri TEXT)")
        connection.execute("CREATE TABLE model_versions (source TEXT, storage_location TEXT)")
        connection.execute("CREATE TABLE logged_models (artifact_location TEXT)")
        for uri in uris:
            connection.execute("INSERT INTO experiments VALUES (?)", (uri,))
            connection.execute("INSERT INTO runs VALUES (?)", (f"{uri}/run/artifacts",))
    connection.close()


def uris_in(path: Path) -> list[str]:
    connection = sqlite3.connect(path)
    rows = connection.execute(
        "SELECT artifact_location FROM experiments UNION ALL SELECT artifact_uri FROM runs"
    ).fetchall()
    connection.close()
    return [row[0] for row in rows]


def test_artifacts_of_a_moved_home_move_with_it(tmp_path: Path) -> None:
    database = tmp_path / "mlflow.db"
    make_database(database, "file:///old/home/mlartifacts", "s3://bucket/mlartifacts")
    for _ in range(2):
        relocate(f"sqlite:///{database}", tmp_path / "mlartifacts")
        root = (tmp_path / "mlartifacts").as_uri()
        assert uris_in(database) == [
            root,
            "s3://bucket/mlartifacts",
            f"{root}/run/artifacts",
            "s3://bucket/mlartifacts/run/artifacts",
        ]


def test_a_database_outside_the_home_is_left_alone(tmp_path: Path) -> None:
    database = tmp_path / "mlflow.db"
    make_database(database, "file:///old/home/mlartifacts")
    before = uris_in(database)
    relocate(f"sqlite:///{database}", tmp_path / "other" / "mlartifacts")
    assert uris_in(database) == before
