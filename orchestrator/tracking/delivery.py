"""Delivery: what moves events from the outbox to a destination, exactly once in effect.

The cursor advances only after the destination has everything before it; whatever is sent again
after a crash is the same as before and changes nothing. No threads here and no MLflow: a
destination is anything with the three methods of ``Destination``.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import filelock

from orchestrator.tracking.events import encode
from orchestrator.tracking.outbox import Cursor, Entry, Outbox, Position
from orchestrator.tracking.runs import RunUpdate, grouped, merge
from orchestrator.tracking.translator import Translator

CHUNK = 500


class Unavailable(Exception):
    """The destination cannot be reached or used at the moment: wait and try again."""


class Rejected(Exception):
    """The destination works but will never take this: set it aside."""


class Gone(Exception):
    """A run that was there has vanished: the destination's content is not what it was."""


class Destination(Protocol):
    """Where runs live."""

    def adopt(self, sweep: str) -> bool:
        """Look up the runs of a sweep, once; tell whether the sweep's own run is there."""

    def end_orphans(self, sweep: str, end_ms: int) -> None:
        """End every trial of the sweep that is still shown as running."""

    def write(self, update: RunUpdate, folder: Path) -> None:
        """Find or create the run and make it hold the update; relative files are in folder."""


class Delivery:
    """Ships an outbox, chunk by chunk.

    Args:
        outbox: What to ship.
        cursor: Where to remember how far it came; next to it lie the lock and the rejects.
        connect: Makes the destination; raises ``Unavailable``.
    """

    def __init__(self, outbox: Outbox, cursor: Cursor, connect: Callable[[], Destination]) -> None:
        self.outbox = outbox
        self.position = cursor.load(outbox)
        self.rejected = 0
        self._cursor = cursor
        self._connect = connect
        self._destination: Destination | None = None
        self._translator = Translator()
        self._groups: deque[list[RunUpdate]] = deque()
        self._next = self.position
        self._lock = filelock.FileLock(cursor.path.with_name(f"{cursor.path.name}.lock"))

    def lag(self) -> int:
        """Return how many events have not arrived."""
        return max(0, self.outbox.last_seq - self.position.seq)

    def step(self) -> int:
        """Ship the next chunk and return how many events it held; 0: nothing left.

        Raises:
            Unavailable: Not now; what could be shipped has been, call again later.
        """
        if not self._lock.is_locked and self._nothing_new():
            return 0
        self._acquire()
        if self._destination is None:
            self._resume(self._connect())
        assert self._destination is not None
        if not self._groups:
            self._load_chunk()
        shipped = self._next.seq - self.position.seq
        try:
            while self._groups:
                self._ship(self._destination, self._groups[0])
                self._groups.popleft()
        except Gone as error:
            self._destination = None
            raise Unavailable(f"{error}; looking up all runs again") from error
        if self._next != self.position:
            self.position = self._next
            self._cursor.save(self.outbox, self.position)
        return shipped

    def close(self) -> None:
        """Let another process ship this outbox."""
        self._destination = None
        self._lock.release()

    def _nothing_new(self) -> bool:
        return next(self.outbox.read_from(self.position.offset), None) is None

    def _acquire(self) -> None:
        if self._lock.is_locked:
            return
        self._cursor.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire(timeout=0)
        except filelock.Timeout as error:
            raise Unavailable("another process is shipping this sweep to MLflow") from error
        self.position = self._cursor.load(self.outbox)

    def _resume(self, destination: Destination) -> None:
        """Bring the translator to the cursor, or start over if the destination lost the sweep."""
        translator = Translator()
        for entry in self.outbox.read_from(0):
            if entry.offset > self.position.offset:
                break
            translator.translate(entry)
        if translator.sweep and not destination.adopt(translator.sweep):
            self.position, translator = Position(), Translator()
        self._translator = translator
        self._next = self.position
        self._groups.clear()
        self._destination = destination

    def _load_chunk(self) -> None:
        entries = list(itertools.islice(self.outbox.read_from(self.position.offset), CHUNK))
        if not entries:
            return
        parts = [part for part in map(self._translator.translate, entries) if part is not None]
        self._groups.extend(grouped(parts))
        self._next = Position(entries[-1].offset, entries[-1].seq)

    def _ship(self, destination: Destination, group: list[RunUpdate]) -> None:
        update = merge(group)
        destination.adopt(update.run.sweep)
        if update.ends_orphans:
            destination.end_orphans(update.run.sweep, update.entries[-1].event.time_ms)
        try:
            destination.write(update, self.outbox.path.parent)
        except Rejected as error:
            if len(group) == 1:
                self._set_aside(update.entries[0], str(error))
            else:
                # Find the culprit: what is fine must arrive, and writing it twice is harmless.
                for part in group:
                    self._ship(destination, [part])

    def _set_aside(self, entry: Entry, reason: str) -> None:
        self.rejected += 1
        path = self.outbox.path.with_name(f"{self.outbox.path.stem}.rejected.jsonl")
        with path.open("a", encoding="utf-8") as stream:
            stream.write(encode(entry.event, seq=entry.seq, reason=reason) + "\n")
