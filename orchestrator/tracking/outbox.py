"""The outbox: the append-only record of what MLflow must be told.

One JSON object per line, written by the driver only; shippers read behind it and remember how
far they came in a cursor file. Nothing here raises because of a full or broken disk: training
goes on, events wait in memory, and one notice says so.
"""

from __future__ import annotations

import json
import os
import threading
import zlib
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from orchestrator.tracking.events import Event, decode, encode
from trainables.store import atomic_write

_BLOCK = 1 << 16


class Entry(NamedTuple):
    """One event read back.

    Attributes:
        offset: Where the next line starts: continue from here.
        seq: Its number in this outbox, from 1, growing.
        event: What happened.
    """

    offset: int
    seq: int
    event: Event


class Outbox:
    """An outbox at ``path``.

    Args:
        path: The JSONL file; it is created, with its folder, by the first ``append``.
        notify: Called with a sentence when writing fails for the first time and when it works
            again.
        limit: Events kept in memory while the file cannot be written; beyond it the oldest epoch
            reports are dropped first.
    """

    def __init__(
        self, path: Path | str, *, notify: Callable[[str], None] | None = None, limit: int = 20_000
    ) -> None:
        if limit < 1:
            raise ValueError(f"limit must be at least 1, got {limit}")
        self.path = Path(path).absolute()
        self.notify = notify
        self.dropped = 0
        self.damaged = 0
        self.problem: str | None = None
        self._limit = limit
        self._waiting: deque[Event] = deque()
        self._descriptor: int | None = None
        self._end = 0
        self._seq = 0
        self._lock = threading.RLock()

    @property
    def last_seq(self) -> int:
        """Number of the last event appended, by this process or an earlier one."""
        with self._lock:
            if self._descriptor is not None:
                return self._seq + len(self._waiting)
        return _tail(self.path)[1] + len(self._waiting)

    def append(self, event: Event) -> None:
        """Write the event as one line, durably if it ends a trial, a stage or the sweep."""
        with self._lock:
            self._waiting.append(event)
            try:
                self._flush()
            except OSError as error:
                message = self._hold(error)
            else:
                message = self._recovered()
        if message and self.notify is not None:
            self.notify(message)

    def close(self) -> None:
        """Write what is waiting, if possible, and close the file."""
        with self._lock:
            try:
                self._flush()
            except OSError as error:
                self._hold(error)
            if self._descriptor is not None:
                os.close(self._descriptor)
                self._descriptor = None

    def read_from(self, offset: int = 0) -> Iterator[Entry]:
        """Yield the complete lines from ``offset`` on; safe while the writer appends.

        A line that is not an event (flipped bytes) is skipped and counted in ``damaged``: one
        bad line must not hide all later ones.
        """
        try:
            stream = self.path.open("rb")
        except FileNotFoundError:
            return
        with stream:
            stream.seek(offset)
            for line in stream:
                if not line.endswith(b"\n"):
                    return
                offset += len(line)
                entry = _parse(line)
                if entry is None:
                    self.damaged += 1
                else:
                    yield Entry(offset, *entry)

    def identity(self) -> int:
        """Return a checksum of the first line, 0 if there is none: tells outboxes apart."""
        try:
            with self.path.open("rb") as stream:
                return zlib.crc32(stream.readline())
        except FileNotFoundError:
            return 0

    def _flush(self) -> None:
        descriptor = self._open()
        durable = False
        while self._waiting:
            event = self._waiting[0]
            line = (encode(event, seq=self._seq + 1) + "\n").encode("utf-8")
            self._write(descriptor, line)
            self._seq += 1
            self._waiting.popleft()
            durable = durable or event.durable
        if durable:
            os.fsync(descriptor)

    def _open(self) -> int:
        if self._descriptor is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
            self._end, self._seq = _tail(self.path)
            try:
                _set_torn_aside(descriptor, self._end, self.path)
            except OSError:
                os.close(descriptor)
                raise
            self._descriptor = descriptor
        return self._descriptor

    def _write(self, descriptor: int, line: bytes) -> None:
        """Append the whole line or nothing: a disk that fills up midway leaves no torn line."""
        written = 0
        try:
            while written < len(line):
                written += os.write(descriptor, line[written:])
        except OSError:
            os.ftruncate(descriptor, self._end)
            raise
        self._end += written

    def _hold(self, error: OSError) -> str | None:
        while len(self._waiting) > self._limit:
            self._drop_one()
        if self.problem is not None:
            return None
        self.problem = f"{self.path} cannot be written: {error.strerror or error}"
        return (
            f"{self.problem}; training goes on, up to {self._limit} events wait in memory: "
            "free space or mend the permissions"
        )

    def _drop_one(self) -> None:
        for index, event in enumerate(self._waiting):
            if not event.durable:
                del self._waiting[index]
                break
        else:
            self._waiting.popleft()
        self.dropped += 1

    def _recovered(self) -> str | None:
        if self.problem is None:
            return None
        self.problem = None
        return f"{self.path} can be written again; {self.dropped} events were lost meanwhile"


@dataclass(frozen=True)
class Position:
    """How far a reader came: the next byte to read and the last event it has dealt with."""

    offset: int = 0
    seq: int = 0


class Cursor:
    """Remembers, in a file, how much of an outbox one destination has received.

    Args:
        path: The cursor file.
        destination: Names the receiver; a cursor of another receiver starts at zero.
    """

    def __init__(self, path: Path | str, destination: str) -> None:
        self.path = Path(path).absolute()
        # A digest, because a server's address may hold a password.
        self._destination = zlib.crc32(destination.encode("utf-8"))

    def load(self, outbox: Outbox) -> Position:
        """Return the position, or the beginning if the file is not about this outbox."""
        try:
            record = json.loads(self.path.read_bytes())
            owner = (record["destination"], record["outbox"])
            position = Position(int(record["offset"]), int(record["seq"]))
        except (OSError, ValueError, KeyError, TypeError):
            return Position()
        if owner != (self._destination, outbox.identity()):
            return Position()
        return position if position.offset <= outbox.path.stat().st_size else Position()

    def save(self, outbox: Outbox, position: Position) -> None:
        """Replace the file; losing it costs a replay, never a wrong number."""
        record = {
            "offset": position.offset,
            "seq": position.seq,
            "destination": self._destination,
            "outbox": outbox.identity(),
        }
        atomic_write(self.path, json.dumps(record).encode("utf-8"), durable=False)


def _parse(line: bytes) -> tuple[int, Event] | None:
    try:
        record = json.loads(line)
        return int(record["seq"]), decode(record)
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def _tail(path: Path) -> tuple[int, int]:
    """Return the end of the last complete line and the number of the last readable event."""
    try:
        size = path.stat().st_size
        with path.open("rb") as stream:
            length = 0
            while length < size:
                length = min(size, max(_BLOCK, 4 * length))
                stream.seek(size - length)
                block = stream.read(length)
                # The first piece may be the second half of a line unless this is the whole file.
                lines = block.splitlines(keepends=True)[0 if length == size else 1 :]
                complete = [line for line in lines if line.endswith(b"\n")]
                seq = next((e[0] for e in map(_parse, reversed(complete)) if e is not None), None)
                if seq is not None:
                    return size - (len(block) - block.rfind(b"\n") - 1), seq
    except FileNotFoundError:
        return 0, 0
    return (size - (len(block) - block.rfind(b"\n") - 1) if size else 0), 0


def _set_torn_aside(descriptor: int, end: int, path: Path) -> None:
    """Move the bytes after the last newline, left by a driver that died, to ``<path>.torn``."""
    torn = os.pread(descriptor, os.fstat(descriptor).st_size - end, end)
    if not torn:
        return
    with path.with_name(f"{path.name}.torn").open("ab") as stream:
        stream.write(torn + b"\n")
    os.ftruncate(descriptor, end)
