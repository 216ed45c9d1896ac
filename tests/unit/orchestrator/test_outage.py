"""Outages on a clock of our own, and on a SQLite database that another connection holds."""

import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError

from orchestrator import database
from orchestrator.errors import PreflightError, SweepLocked
from orchestrator.ledger import Objectives, Outcome, Proposal, StageLedger, open_storage
from orchestrator.outage import Gateway, LedgerAway
from orchestrator.records import Stage, TrialState
from orchestrator.stages import Search, StageRun
from orchestrator.tracking import EventBus
from search_spaces.space import Space
from trainables.store import Store, content_key

SPACE = Space.parse({"alpha": {"uniform": [0.0, 1.0]}})
F1 = Objectives({"val_f1_macro": "max"})


def describe(point: Any) -> Proposal:
    return Proposal("student", content_key(dict(point)), "search", {"epochs": 2}, point=dict(point))


class Database:
    """A database that is there or not, and a clock; ``gateway`` is the way to it."""

    def __init__(self, patience: float = 100.0) -> None:
        self.error: Exception | None = None
        self.written: list[str] = []
        self.said: list[str] = []
        self.time = 0.0
        self.slept: list[float] = []
        self.gateway = Gateway(
            self.touch,
            notify=self.said.append,
            clock=lambda: self.time,
            sleep=self.sleep,
            patience=patience,
        )

    def touch(self) -> None:
        if self.error is not None:
            raise self.error

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.time += seconds

    def write(self, text: str) -> Callable[[], None]:
        def work() -> None:
            self.touch()
            self.written.append(text)

        return work


def refusal(text: str = "server closed the connection") -> OperationalError:
    return OperationalError("SELECT 1", None, Exception(text))


@pytest.fixture
def db() -> Database:
    return Database()


def test_writes_are_kept_in_order_and_written_when_the_database_is_back(db: Database) -> None:
    db.gateway.later(db.write("a"))
    db.error = refusal()
    db.gateway.later(db.write("b"))
    db.gateway.later(db.write("c"))
    assert (db.written, db.gateway.waiting) == (["a"], 2)
    db.error = None
    db.gateway.later(db.write("d"))  # the pause is not over: it is not even tried
    assert db.written == ["a"]
    db.time = 1.5
    db.gateway.later(db.write("e"))
    assert (db.written, db.gateway.waiting) == (["a", "b", "c", "d", "e"], 0)
    assert db.said == [
        "ledger unreachable (server closed the connection), trying again in 1 s",
        "ledger reached again after 2 s",
    ]


def test_nothing_is_written_into_a_sweep_that_another_driver_took_meanwhile(db: Database) -> None:
    db.error = refusal()
    db.gateway.later(db.write("a"))
    db.time = 1.5
    db.error = SweepLocked("another driver took over sweep 'news'")
    with pytest.raises(PreflightError, match="another driver took over sweep 'news'"):
        db.gateway.wait(db.write("b"))
    db.error = None
    db.gateway.later(db.write("c"))
    assert db.written == []
    assert not any("reached again" in text for text in db.said)


def test_pauses_double_up_to_a_limit(db: Database) -> None:
    db.error = refusal()
    with pytest.raises(PreflightError):
        db.gateway.wait(db.write("a"))
    assert db.slept[:7] == [1, 2, 4, 8, 16, 30, 30]
    assert "trying again in 8 s" in db.said[3]


def test_a_long_outage_is_the_end_and_the_message_says_what_to_do(db: Database) -> None:
    db.error = refusal()
    with pytest.raises(PreflightError) as caught:
        db.gateway.wait(db.write("a"))
    assert 100 < db.time < 140
    assert caught.value.exit_code == 3
    assert "could not be reached for" in str(caught.value)
    assert "start the same command again" in str(caught.value)
    assert "\n" not in str(caught.value)
    db.error = None
    db.gateway.later(db.write("b"))  # too late: a later driver must not find gaps
    assert db.written == []
    with pytest.raises(LedgerAway):
        db.gateway.now(db.write("c"))


def test_an_answer_is_not_waited_for_while_trials_run(db: Database) -> None:
    db.error = refusal()
    with pytest.raises(LedgerAway):
        db.gateway.now(lambda: 1)
    assert db.slept == []
    db.error, db.time = None, 1.0
    assert db.gateway.now(lambda: 1) == 1


def test_an_error_that_waiting_cannot_mend_is_raised(db: Database) -> None:
    def work() -> None:
        raise KeyError("a bug")

    with pytest.raises(KeyError):
        db.gateway.later(work)
    with sqlite3.connect(":memory:") as connection:
        try:
            connection.execute("SELECT * FROM nowhere")
        except sqlite3.OperationalError as error:
            db.error = OperationalError("SELECT", None, error)
    with pytest.raises(OperationalError, match="no such table"):
        db.gateway.now(db.write("a"))


class Locked:
    """A ledger in a SQLite file that another connection can take for itself."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "ledger.db"
        self.storage = open_storage(f"sqlite:///{self.path}")
        self.said: list[str] = []
        self.time = 0.0
        self._holder: sqlite3.Connection | None = None
        self.store = Store(folder / "store")

    def ledger(self, **options: Any) -> StageLedger:
        from functools import partial

        from orchestrator.outage import probe

        gateway = Gateway(
            partial(probe, self.storage.engine),
            database.FAILURES,
            notify=self.said.append,
            clock=lambda: self.time,
            sleep=self.sleep,
            **options,
        )
        return StageLedger(self.storage, "s", Stage.STUDENTS, F1, startup=2, gateway=gateway)

    def sleep(self, seconds: float) -> None:
        self.time += seconds

    def lock(self) -> None:
        self._holder = sqlite3.connect(self.path, isolation_level=None)
        self._holder.execute("BEGIN EXCLUSIVE")

    def free(self) -> None:
        if self._holder is not None:
            self._holder.rollback()
            self._holder.close()
            self._holder = None


@pytest.fixture
def locked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Locked]:
    monkeypatch.setattr(database, "_BUSY_S", 0.05)
    held = Locked(tmp_path)
    yield held
    held.free()


def test_a_locked_ledger_takes_reports_later_and_suggests_the_same_point(locked: Locked) -> None:
    stage = locked.ledger()
    running = stage.suggest(SPACE, describe)
    assert running is not None
    locked.lock()
    stage.report(running.number, 1, {"val_f1_macro": 0.4})
    with pytest.raises(LedgerAway):
        stage.suggest(SPACE, describe)
    stage.finish(running, Outcome(TrialState.COMPLETE, {"val_f1_macro": 0.5}))
    assert stage.results() == 1  # known here at once, written down later
    assert locked.said == ["ledger unreachable (database is locked), trying again in 1 s"]
    with pytest.raises(LedgerAway):
        stage.suggest(SPACE, describe)
    locked.free()
    locked.time = 5.0
    second = stage.suggest(SPACE, describe)
    assert second is not None
    states = [record.state for record in stage.records()]
    assert states == [TrialState.COMPLETE, TrialState.RUNNING]
    first = stage.study.trials[0]
    assert (first.intermediate_values, first.value) == ({1: 0.4}, 0.5)
    assert locked.said[-1] == "ledger reached again after 5 s"


def test_a_creation_that_was_not_confirmed_is_found_again(
    locked: Locked, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = locked.ledger()
    with monkeypatch.context() as patch:

        def lose(identifier: int) -> int:
            raise refusal("the connection was lost after the commit")

        patch.setattr(locked.storage, "get_trial_number_from_id", lose)
        with pytest.raises(LedgerAway):
            stage.suggest(SPACE, describe)
    locked.time = 5.0
    assert stage.suggest(SPACE, describe) is not None
    assert len(stage.study.trials) == 1


def test_a_stage_waits_with_its_proposals_while_its_trials_go_on(locked: Locked) -> None:
    search = Search(SPACE, describe, target=2)
    run = StageRun(
        Stage.STUDENTS,
        locked.ledger(),
        locked.store,
        EventBus([]),
        [],
        name=lambda proposal: "a",
        objective="val_f1_macro",
        search=search,
    )
    first = run.propose()
    assert first is not None
    assert not run.waiting()
    run.started(first.number)
    locked.lock()
    assert run.propose() is None
    assert run.waiting()
    last = {"epoch": 1, "val_f1_macro": 0.5, "finished": True, "summary": {"val_f1_macro": 0.5}}
    run.ended(first.number, last, None)
    locked.free()
    locked.time = 60.0
    second = run.propose()
    assert second is not None
    assert not run.waiting()
    run.ended(second.number, last, None)
    assert run.propose() is None
    assert not run.waiting()
    assert run.results() == 2


def test_a_stage_whose_ledger_stays_away_ends_and_says_why(locked: Locked) -> None:
    run = StageRun(
        Stage.STUDENTS,
        locked.ledger(patience=10.0),
        locked.store,
        EventBus([]),
        [describe({"alpha": 0.5})],
        name=lambda proposal: "a",
    )
    locked.lock()
    assert not run.has_work()
    assert run.fatal is not None
    assert "the ledger could not be reached for" in run.fatal
    assert "database is locked" in run.fatal


def test_a_ledger_that_cannot_be_opened_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "ledger.db").mkdir()
    with pytest.raises(PreflightError, match="cannot be opened") as caught:
        open_storage(f"sqlite:///{tmp_path / 'ledger.db'}")
    assert "\n" not in str(caught.value)
