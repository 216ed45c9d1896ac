"""Live progress for people: a view that redraws itself on a terminal, labelled lines elsewhere.

Everything goes to stderr: stdout belongs to results and ``--json``.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Literal, Protocol

from rich.console import Console as RichConsole
from rich.console import RenderableType
from rich.live import Live

from orchestrator.tracking.events import Event, Notice, SweepFinished, SweepStarted
from orchestrator.tracking.lines import Lines
from orchestrator.tracking.progress import Progress
from orchestrator.tracking.view import render

Mode = Literal["auto", "live", "lines", "quiet"]


class Shipping(Protocol):
    """What the status line shows of the way to MLflow."""

    @property
    def last_error(self) -> str | None:
        """Why nothing arrives, or None."""

    def lag(self) -> int:
        """Return how many events have not arrived."""


class Console:
    """An observer that shows progress.

    Args:
        mode: ``auto`` is ``live`` on a terminal, else ``lines``; ``quiet`` shows warnings only.
        shipping: The shipper, for the MLflow line.
        rich_console: Where to write; stderr by default. It honours NO_COLOR and the width.
        clock: Seconds on a clock that never goes back.
    """

    def __init__(
        self,
        mode: Mode = "auto",
        *,
        shipping: Shipping | None = None,
        rich_console: RichConsole | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._rich = rich_console or RichConsole(stderr=True, highlight=False)
        self.shipping = shipping
        self.progress = Progress(clock)
        self._mode = mode if mode != "auto" else ("live" if self._rich.is_terminal else "lines")
        self._lines = Lines(self.progress, clock)
        self._lock = threading.Lock()
        self._live: Live | None = None

    def observe(self, event: Event) -> None:
        """Show what happened."""
        with self._lock:
            lines = self._lines.describe(event, self._lag_text())
        if isinstance(event, SweepStarted) and self._mode == "live":
            self._start_live()
        if self._mode == "lines":
            for line in lines:
                self._write(line)
        elif isinstance(event, Notice) and (self._mode == "live" or event.level != "info"):
            self._write(*lines)
        if isinstance(event, SweepFinished):
            self.close()

    def render(self) -> RenderableType:
        """Return the live view as it is now."""
        with self._lock:
            return render(self.progress, self._lag_text(), self._rich.size)

    def close(self) -> None:
        """Leave the last view on the screen and give the terminal back; may be called twice."""
        live, self._live = self._live, None
        if live is not None:
            live.stop()

    def _start_live(self) -> None:
        if self._live is None:
            # Stray prints of libraries appear above the view instead of through it.
            self._live = Live(
                get_renderable=self.render,
                console=self._rich,
                refresh_per_second=4,
                redirect_stdout=True,
                redirect_stderr=True,
            )
            self._live.start()

    def _write(self, *lines: str) -> None:
        for line in lines:
            self._rich.print(line, markup=False, soft_wrap=True)

    def _lag_text(self) -> str:
        if self.shipping is None:
            return ""
        lag, error = self.shipping.lag(), self.shipping.last_error
        if error:
            return f"{lag} events behind: {error}"
        return f"{lag} events on their way" if lag else "up to date"
