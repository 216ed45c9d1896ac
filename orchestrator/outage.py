"""Patience with a database: what to do while the ledger cannot be reached.

A database server is restarted, a SQLite file is locked by a backup, a network share stalls: none
of these may cost a sweep its running trials. Records wait in memory, in order, and are written
when the database is back; suggestions wait, too. Whoever dies in between loses nothing: the
artifacts are in the store, and the next driver runs the unrecorded trials again from there.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import TypeVar

from sqlalchemy import Engine
from sqlalchemy import exc as errors

from orchestrator.errors import PreflightError, Problem, SweepLocked

T = TypeVar("T")

FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 30.0
# A night's maintenance is shorter; a sweep that waits longer is one that nobody looks after.
PATIENCE_S = 2 * 3600.0

# A SQLite file that another process holds, or a file system that hiccups, is waited for; one that
# is full, read-only or damaged is not, because only a person can mend it.
_PASSING = ("SQLITE_BUSY", "SQLITE_LOCKED", "SQLITE_IOERR", "SQLITE_CANTOPEN", "SQLITE_PROTOCOL")
_LASTING = {
    "SQLITE_FULL": "the disk of the ledger is full",
    "SQLITE_READONLY": "the ledger is read-only",
}


class LedgerAway(Exception):
    """The ledger cannot be reached at the moment; ask again."""


class Gateway:
    """The way to the ledger's database: everything a running stage writes goes through it.

    Args:
        probe: Takes the database's write lock and lets it go, or fails quickly; may say that the
            sweep has become another driver's.
        failures: Exceptions that a database operation may end with.
        notify: Told in words when the database goes, stays away and comes back.
        clock: Seconds on a clock that never goes back.
        sleep: Waits that many seconds.
        patience: Seconds after which an outage counts as the end.

    Attributes:
        lost: Why the ledger was given up, or None.
    """

    def __init__(
        self,
        probe: Callable[[], object],
        failures: tuple[type[Exception], ...] = (errors.SQLAlchemyError,),
        *,
        notify: Callable[[str], None] = lambda text: None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        patience: float = PATIENCE_S,
    ) -> None:
        self.lost: str | None = None
        self._probe = probe
        self._failures = failures
        self._notify = notify
        self._clock = clock
        self._sleep = sleep
        self._patience = patience
        self._writes: deque[Callable[[], object]] = deque()
        self._since: float | None = None
        self._next = 0.0
        self._pause = 0.0

    @property
    def waiting(self) -> int:
        """How many records are held back."""
        return len(self._writes)

    def later(self, write: Callable[[], object]) -> None:
        """Write now if possible, else when the database is back, in the order of the calls.

        Args:
            write: Must change nothing when done twice: its answer may have been lost.
        """
        self._writes.append(write)
        self._flush()

    def now(self, work: Callable[[], T]) -> T:
        """Do something whose answer is needed, after everything that was to be written before.

        Raises:
            LedgerAway: The database cannot be reached, see ``lost``.
        """
        if not self._flush() or not self._works(self._probe):
            raise LedgerAway
        try:
            return work()
        except self._failures as error:
            self._note(error)
            raise LedgerAway from error

    def wait(self, work: Callable[[], T]) -> T:
        """Do something that nothing can go on without, as soon as the database allows it.

        Raises:
            PreflightError: The database stayed away for too long.
        """
        while True:
            try:
                return self.now(work)
            except LedgerAway:
                if self.lost is not None:
                    raise PreflightError([Problem("", self.lost)]) from None
                self.rest()

    def rest(self) -> None:
        """Sleep until the next attempt is due."""
        self._sleep(max(0.0, self._next - self._clock()))

    def _flush(self) -> bool:
        """Write what waits; tells whether the database is there."""
        if self.lost is not None:
            return False
        if self._since is not None and (self._clock() < self._next or not self._works(self._probe)):
            return False
        while self._writes:
            write = self._writes.popleft()  # one that fails for another reason is not kept
            if not self._works(write):
                self._writes.appendleft(write)
                return False
        if self._since is not None:
            self._notify(f"ledger reached again after {self._clock() - self._since:.0f} s")
            self._since = None
        return True

    def _works(self, work: Callable[[], object]) -> bool:
        try:
            work()
        except self._failures as error:
            self._note(error)
            return False
        except SweepLocked as error:
            self.lost = str(error)
            return False
        return True

    def _note(self, error: Exception) -> None:
        """Decide how long to wait after a failure; raises it again if waiting cannot help."""
        cause = _database_error(error)
        if cause is None:
            raise error
        reason = str(cause.orig or cause).strip().partition("\n")[0]
        if (lasting := _lasting(cause)) is not None:
            self._give_up(f"{lasting} ({reason})")
            return
        now = self._clock()
        if self._since is None:
            self._since, self._pause = now, FIRST_PAUSE_S
        else:
            self._pause = min(2 * self._pause, LONGEST_PAUSE_S)
        if now - self._since > self._patience:
            self._give_up(
                f"the ledger could not be reached for {now - self._since:.0f} s ({reason})"
            )
            return
        self._next = now + self._pause
        self._notify(f"ledger unreachable ({reason}), trying again in {self._pause:.0f} s")

    def _give_up(self, reason: str) -> None:
        self.lost = (
            f"{reason}; mend it and start the same command again, which goes on from the store"
        )


def _database_error(error: BaseException | None) -> errors.DBAPIError | None:
    """Return the failure of the database itself behind an error, if that is what it is."""
    while error is not None and not isinstance(error, errors.DBAPIError):
        error = error.__cause__
    if error is None:
        return None
    name = _sqlite_name(error)
    if name is not None:
        return error if name.startswith((*_PASSING, *_LASTING)) else None
    kinds = (errors.OperationalError, errors.InterfaceError)
    return error if error.connection_invalidated or isinstance(error, kinds) else None


def _lasting(error: errors.DBAPIError) -> str | None:
    name = _sqlite_name(error) or ""
    return next((text for code, text in _LASTING.items() if name.startswith(code)), None)


def _sqlite_name(error: errors.DBAPIError) -> str | None:
    """Return SQLite's name of an error, e.g. ``SQLITE_BUSY``; None for other databases."""
    name = getattr(error.orig, "sqlite_errorname", None)
    return None if name is None else str(name)


def probe(engine: Engine, keep: Callable[[], object] = lambda: None) -> None:
    """Find out within seconds whether the database takes writes, without writing anything.

    Args:
        engine: Of the database.
        keep: Makes sure that the sweep is still this driver's.
    """
    statement = "BEGIN IMMEDIATE" if engine.dialect.name == "sqlite" else "SELECT 1"
    with engine.connect() as connection:
        connection.exec_driver_sql(statement)
        connection.rollback()
    keep()
