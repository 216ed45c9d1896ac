"""Leases: two sweeps that want the same artifact make it once.

A lease is a file that only one process can create. Its holder touches it again and again; whoever
waits compares that time with the time of a file it writes itself, so both come from the file
system's clock and skewed hosts do not matter. A holder that is certainly dead, or has not touched
its lease for long, is followed by the next; so is one that works for the same sweep, which has one
driver at a time and gives an artifact to a second trial only when the first is gone. Should a
holder come back from a long sleep, the same artifact is made twice, a waste and not an error: its
name is its content.

In a store behind a URL it is an object there, under the same rules (``trainables.remote_lease``).
"""

from __future__ import annotations

import json
import os
import threading
import uuid
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from trainables.errors import StoreError
from trainables.process import Process
from trainables.store import disk_errors

if TYPE_CHECKING:
    from trainables.remote import Remote

BEAT_SECONDS = 10.0
# File systems of networks may show times that are a minute old.
EXPIRY_SECONDS = 180.0
SWEEP_VARIABLE = "ORCHESTRATOR_SWEEP"
"""Set in the processes of trials: names the sweep they belong to."""


class Spot(Protocol):
    """Where one lease is kept; what it holds is JSON with a ``token``."""

    def create(self, content: bytes) -> bool:
        """Create it; False if somebody has."""

    def read(self) -> bytes | None:
        """Return what its holder wrote, None if it is gone."""

    def beat(self, content: bytes) -> None:
        """Make it fresh, if it is still the one with this content."""

    def age(self) -> float | None:
        """Return the seconds since it was fresh, None if it is gone."""

    def follow(self, token: str | None, content: bytes) -> bool:
        """Take it from the holder with this token, and from no other."""

    def remove(self, token: str) -> None:
        """Remove it, if it is the one of this holder."""


class Lease:
    """The right to make one artifact; the file is ``<root>/leases/<kind>-<key>``.

    Args:
        root: Root folder of the content store.
        kind: Kind of the artifact.
        key: Its key.
        remote: The files of a store behind a URL, where the lease is kept instead.
        beat: Seconds between two touches.
        expiry: Seconds without a touch after which the holder counts as dead.

    Attributes:
        held: Whether this object has it.
    """

    def __init__(
        self,
        root: Path,
        kind: str,
        key: str,
        *,
        remote: Remote | None = None,
        beat: float = BEAT_SECONDS,
        expiry: float = EXPIRY_SECONDS,
    ) -> None:
        if not 0 < beat < expiry:
            raise ValueError(f"0 < beat < expiry must hold, but got {beat=}, {expiry=}")
        self.held = False
        self._root = root
        self._spot = _spot(root, remote, f"{kind}-{key}", expiry)
        self._beat = beat
        self._expiry = expiry
        self._token = uuid.uuid4().hex
        self._sweep = os.environ.get(SWEEP_VARIABLE)
        described = {"token": self._token, "sweep": self._sweep, **Process.current().to_dict()}
        self._content = json.dumps(described).encode("utf-8")
        self._stop = threading.Event()
        self._beating = threading.Lock()

    def take(self) -> str | None:
        """Take it and return None, or return who has it.

        Raises:
            StoreError: The disk is full, read-only or not writable, or the URL does not answer.
        """
        with disk_errors("a lease", self._root):
            if self._spot.create(self._content):
                self._hold()
                return None
            holder = self._holder()
            if holder is None or not self._is_over(holder):
                return str(_process(holder) or "another process")
            if not self._spot.follow(holder.get("token"), self._content):
                return "another process"
            self._hold()
            return None

    def close(self) -> None:
        """Give it back, if it is held."""
        if not self.held:
            return
        self.held = False
        self._stop.set()
        # A disk that has become read-only keeps the file; it ends with this process.
        with suppress(OSError, StoreError), self._beating:
            self._spot.remove(self._token)

    def _hold(self) -> None:
        """Keep it fresh from now on."""
        self.held = True
        threading.Thread(target=self._touch, name="lease", daemon=True).start()

    def _touch(self) -> None:
        while not self._stop.wait(self._beat):
            # Gone, if this process slept so long that another took over; or the disk is away for
            # a while. Neither is a reason to stop what is under way.
            with suppress(OSError, StoreError), self._beating:
                if not self._stop.is_set():  # given back: it must not come to life again
                    self._spot.beat(self._content)

    def _holder(self) -> Mapping[str, Any] | None:
        """Return what the lease says, empty while it is being written, None if it is gone."""
        content = self._spot.read()
        if content is None:
            return None
        try:
            values = json.loads(content)
        except ValueError:
            return {}
        return values if isinstance(values, dict) else {}

    def _is_over(self, holder: Mapping[str, Any]) -> bool:
        process = _process(holder)
        if process is not None and process.is_dead():
            return True
        if self._sweep is not None and holder.get("sweep") == self._sweep:
            return True  # the host of the first attempt is lost: nobody here can see its processes
        age = self._spot.age()
        return age is not None and age > self._expiry  # None: given back in this moment


class FileSpot:
    """The file ``<root>/leases/<name>`` on a disk or a file system all nodes share.

    Args:
        root: Root folder of the content store.
        name: ``<kind>-<key>``.
    """

    def __init__(self, root: Path, name: str) -> None:
        self._folder = root / "leases"
        self._path = self._folder / name

    def create(self, content: bytes) -> bool:
        """Create the file; False if somebody has."""
        self._folder.mkdir(parents=True, exist_ok=True)
        try:
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o664)
        except FileExistsError:
            return False
        try:
            os.write(descriptor, content)
        except OSError:
            self._path.unlink(missing_ok=True)
            raise
        finally:
            os.close(descriptor)
        return True

    def read(self) -> bytes | None:
        """Return what its holder wrote, None if it is gone."""
        try:
            return self._path.read_bytes()
        except FileNotFoundError:
            return None

    def beat(self, content: bytes) -> None:
        """Touch it; a successor's, for a moment, if this process slept for long."""
        del content
        os.utime(self._path)

    def age(self) -> float | None:
        """Return the seconds since it was touched, by the clock of the file system."""
        probe = self._folder / f".{uuid.uuid4().hex}"
        try:
            probe.touch()
            return probe.stat().st_mtime - self._path.stat().st_mtime
        except FileNotFoundError:
            return None
        finally:
            probe.unlink(missing_ok=True)

    def follow(self, token: str | None, content: bytes) -> bool:
        """Take it from the holder with this token, and from no other."""
        self.remove(token)
        return self.create(content)

    def remove(self, token: str | None) -> None:
        """Remove the lease of the holder with this token, and no other's.

        Two that wait may both find the same holder dead; the slower must not remove the new lease
        of the faster. Only a rename tells which file one has got hold of.
        """
        aside = self._folder / f".{uuid.uuid4().hex}"
        try:
            self._path.rename(aside)
        except FileNotFoundError:
            return
        try:
            found = json.loads(aside.read_bytes()).get("token")
        except (ValueError, AttributeError):
            found = None
        if found != token:
            with suppress(FileExistsError):
                os.link(aside, self._path)
        aside.unlink()


def _spot(root: Path, remote: Remote | None, name: str, expiry: float) -> Spot:
    if remote is None:
        return FileSpot(root, name)
    from trainables.remote_lease import RemoteSpot  # as slow to import as the store it is for

    return RemoteSpot(remote, name, expiry)


def _process(holder: Mapping[str, Any] | None) -> Process | None:
    try:
        return Process.from_dict(holder or {})
    except (KeyError, ValueError, TypeError):
        return None
