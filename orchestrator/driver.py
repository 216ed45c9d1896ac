"""The driver process: one sweep with its lock, its outbox, its live view and its shipper."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Literal

from orchestrator.history import load_record
from orchestrator.home import Home
from orchestrator.ledger_lock import ledger_lock
from orchestrator.records import SweepRecord
from orchestrator.report.build import build_report
from orchestrator.report.document import Report
from orchestrator.report.html import to_html
from orchestrator.report.tables import to_description, to_markdown
from orchestrator.schema import SweepConfig
from orchestrator.sweep import Options, Sweep
from orchestrator.tracking import EventBus
from orchestrator.tracking.console import Console
from orchestrator.tracking.events import ArtifactLogged, Described, Event, SweepStarted
from orchestrator.tracking.mlflow import delivery
from orchestrator.tracking.outbox import Outbox
from orchestrator.tracking.shipper import Shipper
from trainables.store import Store, atomic_write, disk_errors

DRAIN_SECONDS = 60.0

Describe = Callable[[SweepRecord, Store], Mapping[str, str]]


def run_sweep(
    config: SweepConfig,
    home: Home,
    options: Options,
    mode: Literal["auto", "live", "lines", "quiet"] = "auto",
    describe: Describe | None = None,
) -> Report:
    """Run a sweep, or what is left of it, and return its report.

    Training never waits for MLflow: events go into the outbox, and what MLflow has not taken
    when the sweep ends is delivered by the next start or by ``orchestrator sync``.

    Args:
        config: What to run.
        home: Where everything is kept.
        options: How to run.
        mode: How much to show.
        describe: Makes further files of the finished sweep, by name, to lie beside the report.

    Raises:
        OrchestratorError: The sweep could not start, failed, or was interrupted.
    """
    ledger = home.ledger_url(config.ledger.url_env)
    with (
        home.lock(config.name),
        ledger_lock(ledger, config.name) as lock,
        _terminate_like_interrupt(),
    ):
        options = replace(options, keep=lock.keep)
        console = Console(mode)
        bus = EventBus([console.observe])
        outbox = Outbox(home.outbox(config.name), notify=bus.notice)
        bus.subscribe(outbox.append)
        shipper = Shipper(
            delivery(
                outbox,
                config.tracking.uri,
                home.path,
                experiment=config.tracking.experiment or config.name,
            )
        )
        console.shipping = shipper
        announced = threading.Event()

        def start_shipping(event: Event) -> None:
            # Not before: a sweep that is refused for its data leaves nothing in MLflow.
            if isinstance(event, SweepStarted):
                announced.set()
                shipper.start()

        bus.subscribe(start_shipping)
        try:
            Sweep(config, home, bus, options).run()
            record = load_record(home, config.name)
            report = build_report(record, home.store)
            _publish(report, home, bus)
            if describe is not None:
                _write(describe(record, home.store), home.sweep(config.name), bus)
            return report
        finally:
            try:
                if announced.is_set():
                    _finish_shipping(shipper, bus)
            finally:  # a second Ctrl-C ends the wait, and must not leave the terminal as it is
                console.close()
                outbox.close()


def _publish(report: Report, home: Home, bus: EventBus) -> None:
    """Write the report beside the sweep and put it with the parent run in MLflow."""
    folder = home.sweep(report.sweep)
    texts = {
        "report.html": to_html(report),
        "report.md": to_markdown(report),
        "report.json": json.dumps(report.to_json(), indent=1, ensure_ascii=False),
    }
    _write(texts, folder, bus)
    bus.emit(Described(to_description(report)))


def _write(texts: Mapping[str, str], folder: Path, bus: EventBus) -> None:
    for name, text in texts.items():
        with disk_errors(name, folder):
            atomic_write(folder / name, text.encode("utf-8"))
        # By name, relative to the outbox: a home can be moved before MLflow has everything.
        bus.emit(ArtifactLogged(f"report/{name}", path=name))


def _finish_shipping(shipper: Shipper, bus: EventBus) -> None:
    lag = shipper.drain(DRAIN_SECONDS)
    shipper.stop()
    if lag:
        reason = shipper.last_error or "it takes too long"
        bus.notice(
            f"{lag} events have not reached MLflow ({reason}); 'orchestrator sync' delivers them"
        )


@contextmanager
def _terminate_like_interrupt() -> Iterator[None]:
    """Treat SIGTERM as Ctrl-C outside of the stages, which have their own handlers."""

    def interrupt(signum: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
