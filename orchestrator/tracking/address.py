"""Where MLflow keeps its data: addresses, the local store, and what to say when it fails.

Imports nothing heavy, so that every verb can say where MLflow is at once.
"""

from __future__ import annotations

import re
import sqlite3
from contextlib import AbstractContextManager, closing, nullcontext
from pathlib import Path
from typing import Any

import filelock

ENVIRONMENT = {
    # MLflow repeats even a create-run whose answer was slow, which makes a second run. The
    # shipper repeats by itself, and looks the run up first.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    # Ending a run prints two links to stdout, which belongs to --json.
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ASYNC_LOGGING": "false",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}

_UNREACHABLE = ("Connection refused", "NewConnectionError", "NameResolutionError")
_ROOT_PART = "/mlartifacts"
_LOCATIONS = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
    ("logged_models", "artifact_location"),
)


def resolve_uri(home: Path | str, uri: str | None = None) -> str:
    """Return the tracking URI: the given one, or the SQLite database of the home."""
    return uri or f"sqlite:///{Path(home).absolute() / 'mlflow.db'}"


def artifact_root(uri: str, home: Path) -> Path | None:
    """Return where a local store keeps artifacts; None: the server decides."""
    return home / "mlartifacts" if uri.startswith("sqlite:") else None


def local_lock(uri: str) -> AbstractContextManager[Any]:
    """Lock a SQLite store while it is opened: two migrations of an empty file break it."""
    if not uri.startswith("sqlite:///"):
        return nullcontext()
    database = _database(uri)
    database.parent.mkdir(parents=True, exist_ok=True)
    return filelock.FileLock(database.with_name(f"{database.name}.lock"), timeout=120)


def relocate(uri: str, root: Path | None) -> None:
    """Point the artifacts of a home's own database at the folder next to it.

    MLflow stores absolute artifact locations and has no call to change them; in a home that was
    moved or copied they would write to, or fail at, the old path.
    """
    if root is None or _database(uri).parent != root.parent:
        return
    with closing(sqlite3.connect(_database(uri), timeout=60)) as connection, connection:
        for table, column in _LOCATIONS:
            connection.execute(
                f"UPDATE {table} SET {column} = ? || substr({column}, instr({column}, ?) + ?) "
                f"WHERE {column} LIKE 'file:%' AND instr({column}, ?) > 0 "
                f"AND {column} NOT LIKE ? || '%'",
                (root.as_uri(), _ROOT_PART, len(_ROOT_PART), _ROOT_PART, root.as_uri()),
            )


def _database(uri: str) -> Path:
    return Path(uri.removeprefix("sqlite:///"))


def explain(status: int, text: str, uri: str) -> str:
    """Say in one sentence what is wrong with the store and how to mend it.

    Args:
        status: The HTTP status of the answer, or the one MLflow maps the error to.
        text: MLflow's own message.
        uri: The store; a password in it is left out.
    """
    where = redacted(uri)
    if status == 401:
        return f"{where} wants a login; set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
    if status == 403:
        return (
            f"{where} refuses (403); check the user's rights, "
            "or start the server with --allowed-hosts naming this host"
        )
    if "too many" in text and "error responses" in text:
        return f"{where} answers with an internal error; look at the MLflow server's log"
    if any(sign in text for sign in _UNREACHABLE):
        return f"{where} does not answer; is the MLflow server running?"
    if "timeout" in text.lower() or "timed out" in text.lower():
        return f"{where} takes longer than 10 s to answer"
    return f"{where}: {one_line(text)}"


def redacted(text: str) -> str:
    """Return the text without the user and password of any address in it."""
    return re.sub(r"//[^/@\s]*@", "//", text)


def one_line(text: str) -> str:
    """Return the text on one line, redacted and at most 200 characters long."""
    line = redacted(" ".join(text.split()))
    return line if len(line) <= 200 else f"{line[:199]}…"
