"""The ledger's database, away for a minute."""

import sqlite3
import time
from collections.abc import Callable
from typing import Any

import pytest

from orchestrator.errors import SweepLocked
from orchestrator.ledger_lock import ledger_lock
from orchestrator.tracking.events import Notice

pytestmark = [
    pytest.mark.faults,
    pytest.mark.ray,
    pytest.mark.timeout(900),
    pytest.mark.usefixtures("shared_ray"),
]
AWAY_SECONDS = 60
STUDENTS = 6
CHANGES = {
    "student.loss": {"name": "stand_ins:Slow", "seconds": 0.15},
    "search.trials": STUDENTS,
}


def test_a_ledger_that_is_away_for_a_minute(bench: Any, figure: Any) -> None:
    """Another process holds the database, as a backup does: nothing can be written into it."""
    run = bench.start(bench.config(**CHANGES))
    run.wait_until(bench.sign_of_life())
    connection = sqlite3.connect(bench.home / "ledger.db", timeout=30, isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")

    def back() -> None:
        connection.execute("ROLLBACK")
        connection.close()

    expect_survival(bench, run, back, figure)


def test_a_postgresql_server_that_crashes(
    bench: Any, postgres_server: Any, monkeypatch: pytest.MonkeyPatch, figure: Any
) -> None:
    """Its locks are gone with it; the driver takes its own again, and stays the only one."""
    monkeypatch.setenv("FAULTS_LEDGER", postgres_server.url)
    config = bench.config(**CHANGES, ledger={"url_env": "FAULTS_LEDGER"})
    run = bench.start(config)
    run.wait_until(bench.sign_of_life())
    postgres_server.crash()

    def back() -> None:
        postgres_server.start()
        run.wait_until(lambda: "reached again" in run.text())
        with pytest.raises(SweepLocked), ledger_lock(postgres_server.url, "fault", patience=0):
            pytest.fail("another driver could have taken the sweep")

    expect_survival(bench, run, back, figure)


def expect_survival(bench: Any, run: Any, back: Callable[[], None], figure: Any) -> None:
    """Wait a minute, call ``back``, and check that the sweep ends whole."""
    before, started = sum(bench.trained().values()), time.monotonic()
    while time.monotonic() - started < AWAY_SECONDS:
        assert run.process.poll() is None, run.text()
        time.sleep(0.5)
    meanwhile = sum(bench.trained().values()) - before
    back()
    assert run.wait() == 0, run.text()
    counts = bench.expect_whole(STUDENTS)
    told = [e.text for e in bench.events(Notice) if "ledger" in e.text]
    figure(
        seconds=AWAY_SECONDS,
        epochs_meanwhile=meanwhile,
        trials=counts.trials,
        twice=counts.twice,
        told=len(told),
    )
    assert counts.twice == 0
    assert meanwhile > 0  # what was running went on
    assert "unreachable" in told[0]
    assert "reached again" in told[-1]
