"""One driver per sweep, by an advisory lock of the PostgreSQL database that holds the ledger.

The lock file of the home does the same where its file system has locks that reach other hosts;
many network file systems have not. The database frees the lock when the driver's connection ends.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import sqlalchemy
from sqlalchemy.exc import ArgumentError, OperationalError

from orchestrator.errors import PreflightError, Problem, SweepLocked

# A host that loses power says no goodbye; without these the server would notice after two hours.
_KEEPALIVE_SECONDS = 5 + 3 * 2
_CONNECT: dict[str, Any] = {
    "options": "-c tcp_keepalives_idle=5 -c tcp_keepalives_interval=2 -c tcp_keepalives_count=3",
    "connect_timeout": 10,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
}
_TAKE = sqlalchemy.text("SELECT pg_try_advisory_lock(hashtextextended(:name, 0))")


@contextmanager
def ledger_lock(
    url: str, sweep: str, *, patience: float = _KEEPALIVE_SECONDS + 4.0
) -> Iterator[None]:
    """Hold a sweep in the database of its ledger; an SQLite file needs no lock but the home's.

    Args:
        url: Of the ledger.
        sweep: Its name; the studies of all sweeps of that name are one in the database.
        patience: Seconds to wait for the lock: long enough for a dead driver to be noticed.

    Raises:
        SweepLocked: Another driver holds it.
        PreflightError: The database does not answer.
    """
    if not url.startswith("postgres"):
        yield
        return
    engine, connection = _connect(url)
    try:
        _take(connection, sweep, patience)
        yield
    finally:
        connection.invalidate()  # really closes it; handed back to a pool, it would keep the lock
        engine.dispose()


def _connect(url: str) -> tuple[sqlalchemy.Engine, sqlalchemy.Connection]:
    try:
        engine = sqlalchemy.create_engine(
            url, connect_args=_CONNECT, isolation_level="AUTOCOMMIT", poolclass=sqlalchemy.NullPool
        )
        return engine, engine.connect()
    except (ArgumentError, OperationalError, ModuleNotFoundError) as error:
        # Only the first line of the cause: SQLAlchemy's own text may repeat the URL.
        reason = str(getattr(error, "orig", None) or type(error).__name__).partition("\n")[0]
        cure = "check the URL in the variable ledger.url_env names, and that the server runs"
        problem = Problem("the ledger's database", f"cannot be opened ({reason})", cure)
        raise PreflightError([problem]) from error


def _take(connection: sqlalchemy.Connection, sweep: str, patience: float) -> None:
    deadline = time.monotonic() + patience
    while not connection.execute(_TAKE, {"name": f"orchestrator/{sweep}"}).scalar():
        if time.monotonic() > deadline:
            raise SweepLocked(
                f"another driver is running sweep {sweep!r} on this ledger; wait for it, stop it, "
                "or give this sweep another name with --set name=..."
            )
        time.sleep(0.5)
