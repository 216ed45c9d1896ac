"""The shipper: a thread that tells MLflow what the outbox holds, and can always be late."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from orchestrator.tracking.delivery import Delivery, Unavailable

MAX_BACKOFF_S = 30.0


@dataclass(frozen=True)
class ShipResult:
    """What a synchronous delivery achieved.

    Attributes:
        shipped: Events delivered by this call.
        lag: Events still waiting.
        rejected: Events set aside because the server will never take them.
        error: Why it stopped early, or None.
    """

    shipped: int
    lag: int
    rejected: int = 0
    error: str | None = None


def ship(delivery: Delivery, progress: Callable[[int], None] | None = None) -> ShipResult:
    """Deliver everything now, in this thread, and stop at the first obstacle.

    Args:
        delivery: What to deliver, and where.
        progress: Called with the number of events left after each chunk.
    """
    shipped, error = 0, None
    try:
        while count := delivery.step():
            shipped += count
            if progress is not None:
                progress(delivery.lag())
    except (Unavailable, OSError) as reason:
        error = str(reason)
    finally:
        delivery.close()
    return ShipResult(shipped, delivery.lag(), delivery.rejected, error)


class Shipper:
    """Runs a delivery in the background: every few seconds, with back-off while it fails.

    Args:
        delivery: What to deliver, and where.
        interval: Seconds between looks at the outbox. Longer means that more epochs of a run
            share one request; nobody reads charts by the second.
        rng: Jitter of the back-off, so that many drivers do not return at the same moment.
    """

    def __init__(
        self, delivery: Delivery, *, interval: float = 2.0, rng: random.Random | None = None
    ) -> None:
        if interval <= 0:
            raise ValueError(f"interval must be positive, got {interval}")
        self.last_error: str | None = None
        self._delivery = delivery
        self._interval = interval
        self._rng = rng or random.Random()
        self._failures = 0
        self._draining = False
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="mlflow-shipper", daemon=True)

    def start(self) -> None:
        """Start the thread; it dies with the process, and the outbox keeps the rest."""
        self._thread.start()

    def lag(self) -> int:
        """Return how many events MLflow has not got yet."""
        return self._delivery.lag()

    @property
    def rejected(self) -> int:
        """How many events this run set aside."""
        return self._delivery.rejected

    def drain(self, timeout: float = 30.0, progress: Callable[[int], None] | None = None) -> int:
        """Wait until everything has arrived and return what has not: the lag.

        Gives up early if the destination still fails: the next start or ``sync`` continues.

        Args:
            timeout: Seconds to wait at most.
            progress: Called with the lag about four times a second.
        """
        deadline = time.monotonic() + timeout
        failures = self._failures
        self._draining = True
        self._wake.set()
        while (lag := self.lag()) and self._thread.is_alive() and time.monotonic() < deadline:
            if self._failures >= failures + 2:
                break
            if progress is not None:
                progress(lag)
            time.sleep(min(0.25, self._interval))
        self._draining = False
        return lag

    def stop(self, timeout: float = 1.0) -> None:
        """Ask the thread to end; it is not waited for beyond the timeout (a request may hang)."""
        self._stop.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(timeout)

    def _run(self) -> None:
        finished = False
        try:
            while not self._stop.is_set():
                self._wake.wait(self._pause())
                self._wake.clear()
                self._deliver()
            finished = True
        finally:
            self._delivery.close()
            if not finished:
                self.last_error = "the shipper stopped by an internal error; run sync afterwards"

    def _pause(self) -> float:
        if self._draining:
            return 1.0 if self._failures else 0.05
        if not self._failures:
            return self._interval
        longest = min(MAX_BACKOFF_S, self._interval * 2.0 ** min(self._failures - 1, 8))
        return longest * self._rng.uniform(0.5, 1.0)

    def _deliver(self) -> None:
        try:
            while self._delivery.step() and not self._stop.is_set():
                pass
        except (Unavailable, OSError) as error:
            self._failures += 1
            self.last_error = str(error)
        else:
            self._failures = 0
            self.last_error = None
