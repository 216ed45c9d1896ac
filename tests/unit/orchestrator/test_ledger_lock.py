"""The advisory lock, against a PostgreSQL of its own where Debian's packages are installed."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError

from orchestrator.errors import PreflightError, SweepLocked
from orchestrator.ledger_lock import ledger_lock

HOLDER = """
import sys, time
from orchestrator.ledger_lock import ledger_lock
with ledger_lock(sys.argv[1], "news"):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def postgres(postgres_server: Any) -> str:
    return str(postgres_server.url)


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


def test_a_lock_that_the_server_forgot_is_taken_again(postgres_server: Any) -> None:
    with ledger_lock(postgres_server.url, "news", patience=1) as lock:
        lock.keep()
        postgres_server.crash()
        with pytest.raises(OperationalError):
            lock.keep()
        postgres_server.start()
        lock.keep()
        with pytest.raises(SweepLocked), ledger_lock(postgres_server.url, "news", patience=0):
            pytest.fail("the lock was given twice")


def test_a_sweep_that_another_driver_took_meanwhile_is_left_to_it(postgres_server: Any) -> None:
    with ledger_lock(postgres_server.url, "news", patience=1) as lock:
        postgres_server.crash()
        postgres_server.start()
        with (
            ledger_lock(postgres_server.url, "news", patience=0),
            pytest.raises(SweepLocked, match="another driver took over sweep 'news'"),
        ):
            lock.keep()


def test_an_sqlite_ledger_needs_no_lock(tmp_path: Path) -> None:
    with ledger_lock(f"sqlite:///{tmp_path}/ledger.db", "news") as lock:
        lock.keep()
        assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("driver", ["postgresql+psycopg", "postgresql+nothing"])
def test_a_database_that_does_not_answer_is_told_without_its_password(driver: str) -> None:
    url = f"{driver}://ledger:hunter2@127.0.0.1:9/ledger"
    with pytest.raises(PreflightError, match="cannot be opened") as caught, ledger_lock(url, "x"):
        pytest.fail("there is no such server")
    assert "hunter2" not in str(caught.value) and "ledger.url_env" in str(caught.value)
