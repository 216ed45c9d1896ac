import json
from pathlib import Path
from typing import Any

import pytest

from orchestrator.records import Stage, TrialState
from orchestrator.tracking.delivery import CHUNK, Delivery, Gone, Unavailable
from orchestrator.tracking.events import (
    SweepFinished,
    SweepStarted,
    TrialFinished,
    TrialReported,
    TrialStarted,
)
from orchestrator.tracking.outbox import Cursor, Outbox
from orchestrator.tracking.shipper import ship

S = Stage.STUDENTS


@pytest.fixture
def outbox(tmp_path: Path) -> Outbox:
    return Outbox(tmp_path / "outbox.jsonl")


def deliver(outbox: Outbox, fake: Any) -> Delivery:
    return Delivery(outbox, Cursor(outbox.path.with_name("cursor.json"), "fake"), fake.connect)


def fill(outbox: Outbox, epochs: int = 3, keys: str = "ab") -> None:
    outbox.append(SweepStarted("news", time_ms=1))
    for key in keys:
        outbox.append(TrialStarted(S, key, key, time_ms=2))
    for epoch in range(epochs):
        for key in keys:
            outbox.append(TrialReported(S, key, epoch, {"m": float(epoch)}, time_ms=3 + epoch))
    for key in keys:
        outbox.append(TrialFinished(S, key, TrialState.COMPLETE, time_ms=99))
    outbox.append(SweepFinished(TrialState.COMPLETE, time_ms=100))


def test_everything_arrives_and_a_second_call_has_nothing_to_do(outbox: Outbox, fake: Any) -> None:
    fill(outbox)
    result = ship(deliver(outbox, fake))
    assert (result.shipped, result.lag, result.error) == (12, 0, None)
    assert set(fake.runs) == {"news", "a", "b"}
    assert len(fake.points) == 6
    writes = fake.writes
    fake.down = True
    assert ship(deliver(outbox, fake)).error is None, "nothing new needs no server"
    assert fake.writes == writes


def test_a_lagging_run_is_written_once_not_once_per_event(outbox: Outbox, fake: Any) -> None:
    fill(outbox, epochs=50)
    ship(deliver(outbox, fake))
    assert fake.writes == 4  # parent, two trials, parent


def test_more_than_a_chunk(outbox: Outbox, fake: Any) -> None:
    fill(outbox, epochs=CHUNK, keys="a")
    left: list[int] = []
    result = ship(deliver(outbox, fake), left.append)
    assert result.shipped == CHUNK + 4
    assert left == [4, 0]
    assert len(fake.points) == CHUNK


def test_down_then_up_continues_where_it_was(outbox: Outbox, fake: Any) -> None:
    fill(outbox)
    fake.down = True
    delivery = deliver(outbox, fake)
    result = ship(delivery)
    assert (result.shipped, result.lag, result.error) == (0, 12, "nobody home")
    fake.down = False
    assert ship(delivery).lag == 0


def test_going_down_within_a_chunk_does_not_count_anything_twice(outbox: Outbox, fake: Any) -> None:
    fill(outbox)
    delivery = deliver(outbox, fake)
    real, calls = fake.write, []

    def flaky(*args: Any) -> None:
        calls.append(args)
        if len(calls) == 3:
            raise Unavailable("just now")
        real(*args)

    fake.write = flaky
    with pytest.raises(Unavailable):
        delivery.step()
    assert delivery.lag() == 12
    assert delivery.step() == 12
    assert fake.runs["a"]["attempt"] == fake.runs["b"]["attempt"] == "1"
    assert all(len(values) == 1 for values in fake.points.values())


def test_replay_from_the_beginning_adds_nothing(outbox: Outbox, fake: Any) -> None:
    fill(outbox)
    ship(deliver(outbox, fake))
    runs, points = json.dumps(fake.runs), dict(fake.points)
    outbox.path.with_name("cursor.json").unlink()
    assert ship(deliver(outbox, fake)).shipped == 12
    assert (json.dumps(fake.runs), fake.points) == (runs, points)


def test_attempts_count_over_restarts_of_the_shipper(outbox: Outbox, fake: Any) -> None:
    outbox.append(SweepStarted("news"))
    outbox.append(TrialStarted(S, "a", "a"))
    outbox.append(TrialReported(S, "a", 1, {"m": 1.0}, time_ms=1))
    ship(deliver(outbox, fake))
    outbox.append(SweepStarted("news"))
    outbox.append(TrialStarted(S, "a", "a"))
    outbox.append(TrialReported(S, "a", 1, {"m": 1.5}, time_ms=2))
    ship(deliver(outbox, fake))
    assert fake.runs["a"]["attempt"] == "2"
    assert fake.points == {("a", "m", 1): [1.0]}


def test_a_rejected_event_is_set_aside_and_the_others_arrive(outbox: Outbox, fake: Any) -> None:
    fill(outbox)
    fake.poison = {1.0}
    result = ship(deliver(outbox, fake))
    assert (result.lag, result.rejected, result.error) == (0, 2, None)
    assert {step for _, _, step in fake.points} == {0, 2}
    lines = outbox.path.with_name("outbox.rejected.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    assert [(r["key"], r["epoch"], r["reason"]) for r in records] == [
        ("a", 1, "poisonous value"),
        ("b", 1, "poisonous value"),
    ]


def test_a_destination_that_lost_everything_gets_everything_again(
    outbox: Outbox, fake: Any
) -> None:
    fill(outbox)
    ship(deliver(outbox, fake))
    fake.runs.clear()
    fake.points.clear()
    outbox.append(SweepStarted("news"))
    assert ship(deliver(outbox, fake)).shipped == 13
    assert set(fake.runs) == {"news", "a", "b"}


def test_a_run_that_vanishes_midway_is_looked_up_again(outbox: Outbox, fake: Any) -> None:
    fill(outbox)
    delivery = deliver(outbox, fake)
    real, calls = fake.write, []

    def wiped(*args: Any) -> None:
        calls.append(args)
        if len(calls) == 3:
            fake.runs.clear()
            raise Gone("a run has vanished")
        real(*args)

    fake.write = wiped
    with pytest.raises(Unavailable, match="looking up all runs again"):
        delivery.step()
    assert ship(delivery).lag == 0
    assert set(fake.runs) == {"news", "a", "b"}


def test_two_processes_do_not_ship_the_same_outbox(outbox: Outbox, fake: Any) -> None:
    fill(outbox)
    first, second = deliver(outbox, fake), deliver(outbox, fake)
    first.step()
    outbox.append(SweepStarted("news"))
    assert ship(second).error == "another process is shipping this sweep to MLflow"
    first.close()
    result = ship(second)
    assert (result.shipped, result.lag) == (1, 0), "it continues where the first one was"


def test_orphans_end_where_a_driver_starts_or_stops(outbox: Outbox, fake: Any) -> None:
    fill(outbox)
    ship(deliver(outbox, fake))
    assert fake.ended == [1, 100]
