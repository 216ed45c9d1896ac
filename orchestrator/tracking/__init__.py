"""Tracking: one stream of events, observed by the outbox, the live view and nobody who decides."""

from __future__ import annotations

import dataclasses
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterable

from orchestrator.tracking.events import Event, Notice

Observer = Callable[[Event], None]


class EventBus:
    """Hands every event to every observer, in order, and never raises.

    Args:
        observers: Called with each event; more can be added with ``subscribe``.
        clock: Seconds since 1970; stamps events whose ``time_ms`` is 0.
    """

    def __init__(
        self, observers: Iterable[Observer] = (), *, clock: Callable[[], float] = time.time
    ) -> None:
        self._observers = list(observers)
        self._clock = clock
        self._last_ms = 0
        self._broken: set[int] = set()
        self._queue: deque[Event] = deque()
        self._draining = False
        self._lock = threading.RLock()

    def subscribe(self, observer: Observer) -> None:
        """Add an observer; it sees the events from now on."""
        with self._lock:
            self._observers.append(observer)

    def emit(self, event: Event) -> None:
        """Stamp the event and hand it to every observer.

        An observer may emit in turn: its event is delivered after the current one, so that all
        observers see the same order.
        """
        with self._lock:
            self._queue.append(self._stamped(event))
            if self._draining:
                return
            self._draining = True
            try:
                while self._queue:
                    self._deliver(self._queue.popleft())
            finally:
                self._draining = False

    def notice(self, text: str) -> None:
        """Emit a warning; fits wherever a callback for text is wanted."""
        self.emit(Notice("warning", text))

    def _stamped(self, event: Event) -> Event:
        if event.time_ms:
            return event
        # Never backwards: with a clock set back, a later epoch would look older in MLflow.
        self._last_ms = max(self._last_ms, int(self._clock() * 1000))
        return dataclasses.replace(event, time_ms=self._last_ms)

    def _deliver(self, event: Event) -> None:
        for index, observer in enumerate(self._observers):
            # The one broad except of the package: whatever is wrong with tracking, it must not
            # stop a training that may have cost days. Told once per observer, not per event.
            try:
                observer(event)
            except Exception:
                if index not in self._broken:
                    self._broken.add(index)
                    text = f"tracking failed, training goes on:\n{traceback.format_exc()}"
                    self._queue.append(self._stamped(Notice("error", text)))
