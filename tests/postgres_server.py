"""A PostgreSQL server for tests, started as in the container, that can be lost and found."""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import sqlalchemy

from orchestrator.deployment import secrets

START = Path(__file__).parents[1] / "deploy" / "postgres-start.sh"


class PostgresServer:
    """One server with the two databases and roles of a deployment.

    Attributes:
        url: Of the ledger's database, with its password.
    """

    def __init__(self) -> None:
        # Not one of pytest's folders, which only their owner enters.
        self._folder = Path(tempfile.mkdtemp(prefix="kdo-postgres-"))
        secrets.make_secrets(self._folder / "secrets")
        self._command = [str(shutil.copy(START, self._folder / "start.sh"))]
        if os.getuid() == 0:
            for path in (self._folder, *self._folder.rglob("*")):
                shutil.chown(path, "postgres", "postgres")
            become = ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups"]
            self._command = [*become, *self._command]
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self._environment = {
            **os.environ,
            "PGDATA": str(self._folder / "data"),
            "PGPORT": str(port),
            "PGSOCKETS": str(self._folder),
            "LISTEN": "127.0.0.1",
            secrets.VARIABLE: str(self._folder / "secrets"),
        }
        passfile = self._folder / "secrets" / secrets.LEDGER_PASSFILE
        password = passfile.read_text().strip().split(":")[-1]
        self.url = f"postgresql+psycopg://ledger:{password}@127.0.0.1:{port}/ledger"
        self._process: subprocess.Popen[bytes] | None = None

    @staticmethod
    def obstacle() -> str:
        """Say why there can be no server here; empty if there can."""
        found = list(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
        return "" if found else "needs apt-get install postgresql"

    def start(self) -> None:
        """Start the server, also after it was lost, and wait until it answers."""
        self._process = subprocess.Popen(
            self._command, env=self._environment, cwd=self._folder, stderr=subprocess.DEVNULL
        )
        engine = sqlalchemy.create_engine(self.url, poolclass=sqlalchemy.NullPool)
        deadline = time.monotonic() + 50
        while True:
            try:
                engine.connect().close()
                return
            except sqlalchemy.exc.OperationalError:
                assert time.monotonic() < deadline, "the server did not come up"
                time.sleep(0.2)

    def crash(self) -> None:
        """End the server at once, without a goodbye to anybody."""
        self._stop(signal.SIGQUIT)

    def close(self) -> None:
        """End the server and remove its data."""
        self._stop(signal.SIGINT)
        shutil.rmtree(self._folder)

    def _stop(self, number: int) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(30)
            self._process = None
