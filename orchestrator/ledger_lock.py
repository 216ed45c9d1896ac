"""One driver per sweep, by an advisory lock of the PostgreSQL database that holds the ledger.

The lock file of the home does the same where its file system has locks that reach other hosts;
many network file systems have not. The database frees the lock when the driver's connection ends,
so a server that was started again has forgotten it: the driver takes it anew.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import sqlalchemy
from sqlalchemy.exc import ArgumentError, DBAPIError, OperationalError

from orchestrator.errors import PreflightError, Problem, SweepLocked

PATIENCE_S = 5 + 3 * 2 + 4.0
"""Seconds after which the lock of a driver that vanished is free: its keepalives and some."""

# A host that loses power says no goodbye; without these the server would notice after two hours.
_CONNECT: dict[str, Any] = {
    "options": "-c tcp_keepalives_idle=5 -c tcp_keepalives_interval=2 -c tcp_keepalives_count=3",
    "connect_timeout": 10,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 11_000,
}
_OPTIONS: dict[str, Any] = {
    "connect_args": _CONNECT,
    "isolation_level": "AUTOCOMMIT",
    "poolclass": sqlalchemy.NullPool,
}
_TAKE = sqlalchemy.text("SELECT pg_try_advisory_lock(hashtextextended(:name, 0))")


class LedgerLock:
    """The lock of one sweep in the database of its ledger; an SQLite file has the home's only.

    Args:
        url: Of the ledger.
        sweep: Its name; the studies of all sweeps of that name are one in the database.
        patience: Seconds to wait for the lock.
    """

    def __init__(self, url: str, sweep: str, *, patience: float) -> None:
        self._url = url
        self._sweep = sweep
        self._patience = patience
        self._engine: sqlalchemy.Engine | None = None
        self._connection: sqlalchemy.Connection | None = None

    def take(self) -> None:
        """Wait for the lock.

        Raises:
            SweepLocked: Another driver holds it.
            PreflightError: The database does not answer.
        """
        if not self._url.startswith("postgres"):
            return
        try:
            self._engine = sqlalchemy.create_engine(self._url, **_OPTIONS)
            taken = self._taken(self._engine)
        except (ArgumentError, OperationalError, ModuleNotFoundError) as error:
            # Only the first line of the cause: SQLAlchemy's own text may repeat the URL.
            reason = str(getattr(error, "orig", None) or type(error).__name__).partition("\n")[0]
            cure = "check the URL in the variable ledger.url_env names, and that the server runs"
            problem = Problem("the ledger's database", f"cannot be opened ({reason})", cure)
            raise PreflightError([problem]) from error
        if not taken:
            raise SweepLocked(
                f"another driver is running sweep {self._sweep!r} on this ledger; wait for it, "
                "stop it, or give this sweep another name with --set name=..."
            )

    def keep(self) -> None:
        """Make sure that the sweep is still this driver's, also after an outage of the database.

        Raises:
            SweepLocked: Another driver took it meanwhile.
            SQLAlchemyError: The database cannot be reached.
        """
        if self._engine is None or self._is_held():
            return
        # The server may hold the lost connection, and with it the lock, for some seconds more.
        if not self._taken(self._engine):
            raise SweepLocked(
                f"another driver took over sweep {self._sweep!r} while the ledger could not be "
                "reached; this one ends and leaves it the sweep"
            )

    def release(self) -> None:
        """Give the lock back."""
        if self._connection is not None:
            # Really closes it; handed back to a pool, it would keep the lock.
            self._connection.invalidate()
            self._connection = None

    def _is_held(self) -> bool:
        if self._connection is None:
            return False
        try:
            self._connection.exec_driver_sql("SELECT 1")
        except DBAPIError:
            self.release()
            return False
        return True

    def _taken(self, engine: sqlalchemy.Engine) -> bool:
        connection = engine.connect()
        try:
            deadline = time.monotonic() + self._patience
            while not connection.execute(_TAKE, {"name": f"orchestrator/{self._sweep}"}).scalar():
                if time.monotonic() > deadline:
                    connection.invalidate()
                    return False
                time.sleep(0.5)
        except DBAPIError:
            connection.invalidate()
            raise
        self._connection = connection
        return True


@contextmanager
def ledger_lock(url: str, sweep: str, *, patience: float = PATIENCE_S) -> Iterator[LedgerLock]:
    """Hold a sweep in the database of its ledger.

    Args:
        url: Of the ledger.
        sweep: Its name.
        patience: See ``LedgerLock``.

    Raises:
        SweepLocked: Another driver holds it.
        PreflightError: The database does not answer.
    """
    lock = LedgerLock(url, sweep, patience=patience)
    try:
        lock.take()
        yield lock
    finally:
        lock.release()
