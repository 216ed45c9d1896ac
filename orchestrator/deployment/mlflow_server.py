"""The MLflow server of the cluster: ``python -m orchestrator.deployment.mlflow_server``.

Its secrets are files; the process arguments, the URL of its database and its settings hold none.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from orchestrator.deployment import secrets
from orchestrator.errors import OrchestratorError
from orchestrator.tracking.address import ENVIRONMENT

USER = "admin"
# No rights by default: whoever gets a login sees nothing until the admin says so.
_SETTINGS = """[mlflow]
default_permission = NO_PERMISSIONS
database_uri = {database}
admin_username = {user}
authorization_function = mlflow.server.auth:authenticate_request_basic_auth
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Become the server."""
    options = _parser().parse_args(arguments)
    folder = secrets.folder_of()
    try:
        environment = server_environment(folder, options.database)
    except OrchestratorError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(error.exit_code)
    os.execvpe(sys.executable, server_command(options), environment)


def server_environment(folder: Path, database: str) -> dict[str, str]:
    """Return the server's environment, where MLflow wants its secrets to be.

    Args:
        folder: Holds the secrets.
        database: URL of the runs' database, without a password.

    Raises:
        PreflightError: A secret is missing, or open to others.
    """
    secrets.require(folder, [secrets.MLFLOW_PASSFILE])
    settings = Path(tempfile.mkdtemp(prefix="mlflow-")) / "basic_auth.ini"
    settings.write_text(_SETTINGS.format(database=database, user=USER), encoding="utf-8")
    return {
        **os.environ,
        **ENVIRONMENT,
        "PGPASSFILE": str(folder / secrets.MLFLOW_PASSFILE),
        # MLflow would start a runner of jobs on the server; nobody here needs one.
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_BACKEND_STORE_URI": database,
        "MLFLOW_AUTH_CONFIG_PATH": str(settings),
        "MLFLOW_AUTH_ADMIN_PASSWORD": secrets.read_secret(folder, secrets.MLFLOW_PASSWORD),
        "MLFLOW_FLASK_SERVER_SECRET_KEY": secrets.read_secret(folder, secrets.MLFLOW_KEY),
    }


def server_command(options: argparse.Namespace) -> list[str]:
    """Return the arguments of ``mlflow server``: artifacts go through it to its own folder."""
    return [
        sys.executable,
        "-m",
        "mlflow",
        "server",
        "--app-name=basic-auth",
        f"--host={options.host}",
        f"--port={options.port}",
        f"--artifacts-destination={options.artifacts}",
        f"--allowed-hosts={options.allowed_hosts}",
        f"--workers={options.workers}",
    ]


def client_environment(folder: Path) -> Mapping[str, str]:
    """Return the login of a client, for the process that ships runs and for no other."""
    return {
        "MLFLOW_TRACKING_USERNAME": USER,
        "MLFLOW_TRACKING_PASSWORD": secrets.read_secret(folder, secrets.MLFLOW_PASSWORD),
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="orchestrator.deployment.mlflow_server")
    parser.add_argument("--database", required=True, help="URL without a password")
    parser.add_argument("--artifacts", required=True, help="folder of the artifacts")
    parser.add_argument("--allowed-hosts", required=True, help="Host headers to answer, by comma")
    parser.add_argument("--host", default="0.0.0.0")
    parser.add_argument("--port", type=int, default=5000)
    parser.add_argument("--workers", type=int, default=1)
    return parser


if __name__ == "__main__":
    main()
