"""MLflow from the command line: open its UI, deliver what it has not got."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from typing import Any

from orchestrator.history import load_sweep_config
from orchestrator.home import Home
from orchestrator.tracking.address import ENVIRONMENT
from orchestrator.tracking.delivery import Delivery
from orchestrator.tracking.mlflow import delivery
from orchestrator.tracking.outbox import Outbox
from orchestrator.tracking.shipper import ship
from orchestrator.tracking.ui import ui_command


def delivery_of(home: Home, name: str, *, replay: bool = False) -> Delivery:
    """Return the delivery of a sweep's outbox to where its config says MLflow is."""
    config = load_sweep_config(home, name)
    return delivery(
        Outbox(home.outbox(name)),
        config.tracking.uri,
        home.path,
        experiment=config.tracking.experiment or config.name,
        replay=replay,
    )


def deliver(home: Home, name: str) -> dict[str, Any]:
    """Deliver a sweep's outbox now; returns how much was shipped and what is left."""
    return vars(ship(delivery_of(home, name)))


def open_ui(home: Home, name: str | None, port: int, tell: Callable[[str], None]) -> int:
    """Run the MLflow UI until it is interrupted and return its exit code."""
    uri = None
    if home.sweeps():
        state = home.read_state(home.find_sweep(name))
        uri = state["config"]["tracking"]["uri"]
    if uri is not None and uri.startswith("http"):
        tell(f"this sweep reports to a server; open {uri}")
        return 0
    tell(f"MLflow UI: http://127.0.0.1:{port}  (Ctrl-C ends it)")
    try:
        command = ui_command(home.path, uri, port=port)
        environment = {**os.environ, **ENVIRONMENT}  # telemetry off
        return subprocess.run(command, env=environment, check=False).returncode
    except KeyboardInterrupt:
        return 0
