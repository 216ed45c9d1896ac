"""The ledger's database: how it is opened so that a driver can outlive its outages."""

from __future__ import annotations

import time
from typing import Any

import optuna
import sqlalchemy

from orchestrator.errors import PreflightError, Problem

Storage = optuna.storages.RDBStorage
# What an operation on the storage may end with.
FAILURES = (optuna.exceptions.StorageInternalError, sqlalchemy.exc.SQLAlchemyError)

_RACE_S = 2.0
# How long SQLite itself waits for a lock, with the driver standing still; then the gateway does.
_BUSY_S = 2.0
# So that a PostgreSQL server that vanished without a word is noticed within seconds, too.
_LIBPQ = {
    "connect_timeout": 5,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,
}


def open_storage(url: str) -> Storage:
    """Open the database behind ``url``; creates an SQLite file that is not there.

    Raises:
        PreflightError: It cannot be opened.
    """
    try:
        try:
            return _open(url)
        except FAILURES:
            # Two sweeps that begin in an empty home both make the tables; one of them fails.
            time.sleep(_RACE_S)
            return _open(url)
    except (sqlalchemy.exc.DBAPIError, optuna.exceptions.StorageInternalError) as error:
        cause = error if isinstance(error, sqlalchemy.exc.DBAPIError) else error.__cause__
        reason = str(getattr(cause, "orig", None) or cause).strip().partition("\n")[0]
        cure = "start the database, or free it, and start the same command again"
        problem = Problem("ledger", f"the database cannot be opened ({reason})", cure)
        raise PreflightError([problem]) from error


def _open(url: str) -> Storage:
    target = sqlalchemy.make_url(url)
    if target.get_backend_name() != "sqlite":
        libpq = target.get_driver_name() in {"psycopg", "psycopg2"}
        # Connections from before a restart of the server are replaced, not used.
        kwargs = {"pool_pre_ping": True, "connect_args": dict(_LIBPQ) if libpq else {}}
        return Storage(url, engine_kwargs=kwargs)
    storage = Storage(url, engine_kwargs={"connect_args": {"timeout": _BUSY_S}})
    # Connections made before this listener, by the storage's own set-up, do not have the pragmas.
    sqlalchemy.event.listen(storage.engine, "connect", _relax)
    storage.engine.dispose()
    return storage


def _relax(connection: Any, record: Any) -> None:
    """Let SQLite sync at checkpoints only: a trial is a dozen transactions.

    A power cut may take back the last trials, whose artifacts answer them at the next start.
    """
    del record
    for pragma in ("journal_mode=WAL", "synchronous=NORMAL"):
        connection.execute(f"PRAGMA {pragma}").close()
