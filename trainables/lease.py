"""Leases: two sweeps that want the same artifact make it once.

A lease is a file that only one process can create. Its holder touches it again and again; whoever
waits compares that time with the time of a file it writes itself, so both come from the file
system's clock and skewed hosts do not matter. A holder that is certainly dead, or has not touched
its lease for long, is followed by the next; so is one that works for the same driver, which never
gives an artifact to a second trial before the first is gone. Should a holder come back from a long
sleep, the same artifact is made twice, a waste and not an error: its name is its content.
"""

from __future__ import annotations

import json
import os
import threading
import uuid
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from trainables.process import Process
from trainables.store import disk_errors

BEAT_SECONDS = 10.0
# File systems of networks may show times that are a minute old.
EXPIRY_SECONDS = 180.0
DRIVER_VARIABLE = "ORCHESTRATOR_DRIVER"
"""Set in the processes of trials: names the driver that started them."""


class Lease:
    """The right to make one artifact; the file is ``<root>/leases/<kind>-<key>``.

    Args:
        root: Root folder of the content store.
        kind: Kind of the artifact.
        key: Its key.
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
        beat: float = BEAT_SECONDS,
        expiry: float = EXPIRY_SECONDS,
    ) -> None:
        if not 0 < beat < expiry:
            raise ValueError(f"0 < beat < expiry must hold, but got {beat=}, {expiry=}")
        self.held = False
        self._root = root
        self._folder = root / "leases"
        self._path = self._folder / f"{kind}-{key}"
        self._beat = beat
        self._expiry = expiry
        self._token = uuid.uuid4().hex
        self._driver = os.environ.get(DRIVER_VARIABLE)
        self._stop = threading.Event()

    def take(self) -> str | None:
        """Take it and return None, or return who has it.

        Raises:
            StoreError: The disk is full, read-only or not writable.
        """
        with disk_errors("a lease", self._root):
            self._folder.mkdir(parents=True, exist_ok=True)
            if self._create():
                return None
            holder = self._holder()
            if holder is None or not self._is_over(holder):
                return str(_process(holder) or "another process")
            self._remove(holder.get("token"))
            return None if self._create() else "another process"

    def close(self) -> None:
        """Give it back, if it is held."""
        if not self.held:
            return
        self.held = False
        self._stop.set()
        # A disk that has become read-only keeps the file; it ends with this process.
        with suppress(OSError):
            self._remove(self._token)

    def _create(self) -> bool:
        """Create the file if nobody has, and keep it fresh from then on."""
        try:
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o664)
        except FileExistsError:
            return False
        described = {"token": self._token, "driver": self._driver, **Process.current().to_dict()}
        text = json.dumps(described)
        try:
            os.write(descriptor, text.encode("utf-8"))
        except OSError:
            self._path.unlink(missing_ok=True)
            raise
        finally:
            os.close(descriptor)
        self.held = True
        threading.Thread(target=self._touch, name="lease", daemon=True).start()
        return True

    def _touch(self) -> None:
        while not self._stop.wait(self._beat):
            # Gone, if this process slept so long that another took over; or the disk is away for
            # a while. Neither is a reason to stop what is under way.
            with suppress(OSError):
                os.utime(self._path)

    def _holder(self) -> Mapping[str, Any] | None:
        """Return what the file says, empty while it is being written, None if it is gone."""
        try:
            values = json.loads(self._path.read_bytes())
        except FileNotFoundError:
            return None
        except ValueError:
            return {}
        return values if isinstance(values, dict) else {}

    def _is_over(self, holder: Mapping[str, Any]) -> bool:
        process = _process(holder)
        if process is not None and process.is_dead():
            return True
        if self._driver is not None and holder.get("driver") == self._driver:
            return True  # the host of the first attempt is lost: nobody here can see its processes
        probe = self._folder / f".{self._token}"
        try:
            probe.touch()
            return probe.stat().st_mtime - self._path.stat().st_mtime > self._expiry
        except FileNotFoundError:
            return False  # given back in this moment
        finally:
            probe.unlink(missing_ok=True)

    def _remove(self, token: str | None) -> None:
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


def _process(holder: Mapping[str, Any] | None) -> Process | None:
    try:
        return Process.from_dict(holder or {})
    except (KeyError, ValueError, TypeError):
        return None
