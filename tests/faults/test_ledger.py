"""The ledger's database, away for a minute."""

import sqlite3
import time
from typing import Any

import pytest

from orchestrator.tracking.events import Notice

pytestmark = [
    pytest.mark.faults,
    pytest.mark.ray,
    pytest.mark.timeout(900),
    pytest.mark.usefixtures("shared_ray"),
]
AWAY_SECONDS = 60


def test_a_ledger_that_is_away_for_a_minute(bench: Any, figure: Any) -> None:
    """Another process holds the database, as a backup does: nothing can be written into it."""
    loss = {"name": "stand_ins:Slow", "seconds": 0.15}
    run = bench.start(bench.config(**{"student.loss": loss, "search.trials": 6}))
    run.wait_until(bench.sign_of_life())
    connection = sqlite3.connect(bench.home / "ledger.db", timeout=30, isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    before, started = sum(bench.trained().values()), time.monotonic()
    while time.monotonic() - started < AWAY_SECONDS:
        assert run.process.poll() is None, run.text()
        time.sleep(0.5)
    meanwhile = sum(bench.trained().values()) - before
    connection.execute("ROLLBACK")
    connection.close()
    assert run.wait() == 0, run.text()
    counts = bench.expect_whole(6)
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
