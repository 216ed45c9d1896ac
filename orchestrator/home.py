"""The home: the one directory a sweep writes to.

::

    <home>/store/                 the content store, shared by all sweeps, unless it is a URL
    <home>/store.url              the URL, once a sweep has begun to use it
    <home>/ledger.db              the Optuna studies, unless a database is configured
    <home>/mlflow.db, mlartifacts the MLflow runs, unless a server is configured
    <home>/sweeps/NAME/           sweep.json, outbox.jsonl and the driver's lock
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import filelock

from orchestrator.errors import PreflightError, Problem, SweepLocked, UsageError
from trainables.store import Store, atomic_write, is_url

VARIABLE = "ORCHESTRATOR_HOME"
STORE_VARIABLE = "ORCHESTRATOR_STORE"
DEFAULT = ".orchestrator"
STORE_FILE = "store.url"


class Home:
    """Where everything is kept.

    Args:
        path: The directory; it is made when something is written. None takes the environment's
            ``ORCHESTRATOR_HOME``, else ``.orchestrator`` below the current directory.
        store: URL of the content store. None takes the one this home began with, else the
            environment's ``ORCHESTRATOR_STORE``, else a folder of this home.
    """

    def __init__(self, path: Path | str | None = None, *, store: str | None = None) -> None:
        self.path = Path(path or os.environ.get(VARIABLE) or DEFAULT).absolute()
        self._store = store

    @property
    def store(self) -> Store:
        """The content store.

        Raises:
            UsageError: Another one is named than this home has begun with.
            StoreError: Its URL cannot be used.
        """
        return Store(self._store_url() or self.path / "store")

    def _store_url(self) -> str | None:
        """Return the URL of the store, None for the folder of this home."""
        named = self._store or os.environ.get(STORE_VARIABLE)
        named = named.rstrip("/") if named else None
        if named is not None and not is_url(named):
            raise UsageError(
                f"the store must be a URL such as s3://bucket/prefix, got {named!r}; a folder "
                "is named by --home"
            )
        try:
            known = (self.path / STORE_FILE).read_text(encoding="utf-8").strip()
        except OSError:
            known = None
        if known is None and named is not None and self.sweeps():
            known = "its folder store/"
        if named is not None and known not in {None, named}:
            raise UsageError(
                f"the sweeps of {self.path} have their artifacts in {known}; name another --home "
                f"to use {named}"
            )
        return known or named

    def ledger_url(self, variable: str | None = None) -> str:
        """Return the URL of the ledger: what an environment variable holds, else a local file.

        Raises:
            PreflightError: The variable is not set.
        """
        if variable is None:
            return f"sqlite:///{self.path / 'ledger.db'}"
        if not os.environ.get(variable):
            text = f"the environment variable {variable} is not set"
            raise PreflightError([Problem("ledger.url_env", text, "export it, or set it to null")])
        return os.environ[variable]

    def sweep(self, name: str) -> Path:
        """Return the directory of a sweep."""
        return self.path / "sweeps" / name

    def outbox(self, name: str) -> Path:
        """Return the outbox file of a sweep."""
        return self.sweep(name) / "outbox.jsonl"

    def sweeps(self) -> list[str]:
        """List the sweeps that were started here, the latest last."""
        files = sorted(self.path.glob("sweeps/*/sweep.json"), key=lambda file: file.stat().st_mtime)
        return [file.parent.name for file in files]

    def find_sweep(self, name: str | None) -> str:
        """Return the sweep of that name, or the latest.

        Raises:
            UsageError: There is none.
        """
        known = self.sweeps()
        if not known:
            raise UsageError(
                f"no sweep has been started in {self.path}; start one with 'orchestrator sweep', "
                "or name another --home"
            )
        if name is None:
            return known[-1]
        if name not in known:
            raise UsageError(f"no sweep {name!r} in {self.path}; there are: {', '.join(known)}")
        return name

    def read_state(self, name: str) -> dict[str, Any]:
        """Return what the driver wrote down about a sweep, or nothing."""
        try:
            state = json.loads((self.sweep(name) / "sweep.json").read_bytes())
        except FileNotFoundError:
            return {}
        return dict(state)

    def write_state(self, name: str, state: dict[str, Any]) -> None:
        """Replace what is written down about a sweep."""
        text = json.dumps(state, indent=1, sort_keys=True)
        url = self._store_url()
        if url is not None and not (self.path / STORE_FILE).exists():
            atomic_write(self.path / STORE_FILE, f"{url}\n".encode())
        atomic_write(self.sweep(name) / "sweep.json", text.encode("utf-8"))

    @contextmanager
    def lock(self, name: str) -> Iterator[None]:
        """Hold a sweep: the lock dies with the process, whatever kills it.

        Raises:
            SweepLocked: Another driver holds it.
            PreflightError: The home cannot be written.
        """
        folder = self.sweep(name)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            # 'status' looks by taking the lock for a moment, which is not another driver.
            lock = filelock.FileLock(folder / "lock", timeout=0.5)
            lock.acquire()
        except filelock.Timeout as error:
            raise SweepLocked(
                f"another driver is running sweep {name!r} in {self.path}; wait for it, stop it, "
                "or give this sweep another name with --set name=..."
            ) from error
        except OSError as error:
            problem = Problem(
                str(self.path), f"cannot be written ({error.strerror})", "name another --home"
            )
            raise PreflightError([problem]) from error
        try:
            yield
        finally:
            lock.release()
