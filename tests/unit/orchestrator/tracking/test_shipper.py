import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orchestrator.records import Stage, TrialState
from orchestrator.tracking.delivery import Delivery
from orchestrator.tracking.events import StageFinished, SweepFinished, SweepStarted
from orchestrator.tracking.outbox import Cursor, Outbox
from orchestrator.tracking.shipper import MAX_BACKOFF_S, Shipper


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, "did not happen within 10 s"
        time.sleep(0.01)


@pytest.fixture
def outbox(tmp_path: Path) -> Outbox:
    return Outbox(tmp_path / "outbox.jsonl")


def shipper_of(outbox: Outbox, fake: Any, interval: float = 0.01) -> Shipper:
    cursor = Cursor(outbox.path.with_name("cursor.json"), "fake")
    return Shipper(Delivery(outbox, cursor, fake.connect), interval=interval)


def test_it_follows_the_outbox_in_the_background(outbox: Outbox, fake: Any) -> None:
    shipper = shipper_of(outbox, fake)
    shipper.start()
    outbox.append(SweepStarted("news"))
    wait_for(lambda: shipper.lag() == 0)
    outbox.append(SweepFinished(TrialState.COMPLETE))
    wait_for(lambda: fake.runs["news"]["state"] == "complete")
    shipper.stop()


def test_drain_does_not_wait_for_the_interval(outbox: Outbox, fake: Any) -> None:
    shipper = shipper_of(outbox, fake, interval=600.0)
    shipper.start()
    outbox.append(SweepStarted("news"))
    assert shipper.drain(timeout=10) == 0
    shipper.stop()


def test_a_server_that_is_down_shows_as_lag_and_error_and_recovers(
    outbox: Outbox, fake: Any
) -> None:
    fake.down = True
    shipper = shipper_of(outbox, fake)
    shipper.start()
    outbox.append(SweepStarted("news"))
    wait_for(lambda: shipper.last_error == "nobody home")
    assert shipper.lag() == 1
    fake.down = False
    wait_for(lambda: shipper.lag() == 0 and shipper.last_error is None)
    shipper.stop()


def test_drain_gives_up_early_when_the_server_stays_down(outbox: Outbox, fake: Any) -> None:
    fake.down = True
    shipper = shipper_of(outbox, fake)
    shipper.start()
    outbox.append(SweepStarted("news"))
    seen: list[int] = []
    start = time.monotonic()
    assert shipper.drain(timeout=60, progress=seen.append) == 1
    assert time.monotonic() - start < 20
    assert set(seen) == {1}
    shipper.stop()


def test_backoff_doubles_with_jitter_up_to_thirty_seconds(outbox: Outbox, fake: Any) -> None:
    cursor = Cursor(outbox.path.with_name("cursor.json"), "fake")
    shipper = Shipper(Delivery(outbox, cursor, fake.connect), interval=2.0, rng=random.Random(0))
    pauses = []
    for failures in range(12):
        shipper._failures = failures
        pauses.append(shipper._pause())
    assert pauses[0] == 2.0
    for failures, pause in enumerate(pauses[1:], 1):
        longest = min(MAX_BACKOFF_S, 2.0**failures)
        assert longest / 2 <= pause <= longest


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_bug_ends_the_thread_but_is_said(outbox: Outbox, fake: Any) -> None:
    def bug(*_: Any) -> None:
        raise TypeError("oops")

    fake.write = bug
    shipper = shipper_of(outbox, fake)
    shipper.start()
    outbox.append(SweepStarted("news"))
    wait_for(lambda: shipper.last_error is not None)
    assert "internal error" in str(shipper.last_error)
    assert shipper.drain(timeout=5) == 1


def test_a_wrong_interval_is_refused(outbox: Outbox, fake: Any) -> None:
    with pytest.raises(ValueError, match="must be positive, got 0"):
        shipper_of(outbox, fake, interval=0)


def test_events_that_concern_no_run_do_not_count_as_lag(outbox: Outbox, fake: Any) -> None:
    shipper = shipper_of(outbox, fake)
    shipper.start()
    outbox.append(StageFinished(Stage.OUTPUTS))
    assert shipper.drain(timeout=5) == 0
    shipper.stop()
