"""The advisory lock, against a PostgreSQL of its own where Debian's packages are installed."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.deployment import secrets
from orchestrator.errors import PreflightError, SweepLocked
from orchestrator.ledger_lock import ledger_lock

START = Path(__file__).parents[3] / "deploy" / "postgres-start.sh"
HOLDER = """
import sys, time
from orchestrator.ledger_lock import ledger_lock
with ledger_lock(sys.argv[1], "news"):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture(scope="module")
def postgres() -> Iterator[str]:
    """The URL of a real server, started as in the container."""
    if not list(Path("/usr/lib/postgresql").glob("*/bin/initdb")):
        pytest.skip("needs apt-get install postgresql")
    folder = Path(tempfile.mkdtemp(prefix="kdo-lock-"))  # not pytest's, which only root enters
    secrets.make_secrets(folder / "secrets")
    command = [str(shutil.copy(START, folder / "start.sh"))]
    if os.getuid() == 0:
        for path in (folder, *folder.rglob("*")):
            shutil.chown(path, "postgres", "postgres")
        command = ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups", *command]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {
        **os.environ,
        "PGDATA": str(folder / "data"),
        "PGPORT": str(port),
        "PGSOCKETS": str(folder),
        "LISTEN": "127.0.0.1",
        secrets.VARIABLE: str(folder / "secrets"),
    }
    server = subprocess.Popen(command, env=environment, cwd=folder, stderr=subprocess.DEVNULL)
    password = (folder / "secrets" / secrets.LEDGER_PASSFILE).read_text().strip().split(":")[-1]
    url = f"postgresql+psycopg://ledger:{password}@127.0.0.1:{port}/ledger"
    try:
        _wait(url)
        yield url
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(30)
        shutil.rmtree(folder)


def _wait(url: str) -> None:
    deadline = time.monotonic() + 50
    while True:
        try:
            with ledger_lock(url, "probe"):
                return
        except PreflightError:
            assert time.monotonic() < deadline, "the server did not come up"
            time.sleep(0.2)


def test_one_driver_per_sweep(postgres: str) -> None:
    with ledger_lock(postgres, "news"):
        with (
            pytest.raises(SweepLocked, match="another driver is running sweep 'news'"),
            ledger_lock(postgres, "news", patience=0),
        ):
            pytest.fail("the lock was given twice")
        with ledger_lock(postgres, "other", patience=0):
            pass
    with ledger_lock(postgres, "news", patience=0):
        pass


def test_the_lock_of_a_killed_driver_is_free(postgres: str) -> None:
    command = [sys.executable, "-c", HOLDER, postgres]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as driver:
        assert driver.stdout is not None and driver.stdout.readline() == "held\n"
        with pytest.raises(SweepLocked), ledger_lock(postgres, "news", patience=0):
            pytest.fail("the lock was given twice")
        driver.kill()
        with ledger_lock(postgres, "news", patience=10):
            pass


def test_an_sqlite_ledger_needs_no_lock(tmp_path: Path) -> None:
    with ledger_lock(f"sqlite:///{tmp_path}/ledger.db", "news"):
        assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("driver", ["postgresql+psycopg", "postgresql+nothing"])
def test_a_database_that_does_not_answer_is_told_without_its_password(driver: str) -> None:
    url = f"{driver}://ledger:hunter2@127.0.0.1:9/ledger"
    with pytest.raises(PreflightError, match="cannot be opened") as caught, ledger_lock(url, "x"):
        pytest.fail("there is no such server")
    assert "hunter2" not in str(caught.value) and "ledger.url_env" in str(caught.value)
