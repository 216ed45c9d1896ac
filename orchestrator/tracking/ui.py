"""The command behind ``orchestrator ui``."""

from __future__ import annotations

import sys
from pathlib import Path

from orchestrator.tracking.address import artifact_root, resolve_uri


def ui_command(
    home: Path | str, uri: str | None = None, *, host: str = "127.0.0.1", port: int = 5000
) -> list[str]:
    """Return the command that serves the MLflow UI over the right store.

    Empty if ``uri`` is a server already: there is nothing to start, only an address to open.
    Start it with ``ENVIRONMENT`` added to the process environment.
    """
    store = resolve_uri(home, uri)
    if store.startswith(("http://", "https://")):
        return []
    artifacts = artifact_root(store, Path(home).absolute())
    return [
        *(sys.executable, "-m", "mlflow", "server"),
        *("--backend-store-uri", store),
        *("--artifacts-destination", str(artifacts)),
        *("--host", host),
        *("--port", str(port)),
        *("--workers", "1"),
    ]
