"""Which process made a file, and whether it is certainly gone: for leases and leftovers."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Process:
    """A process as other processes, also on other hosts, can know it.

    Attributes:
        host: Name of its host, for people.
        space: Names the running kernel and the PID name space, in which ``pid`` has a meaning.
        pid: Its number there.
        born: When it started, in the kernel's ticks: numbers are used again, these are not.
    """

    host: str
    space: str
    pid: int
    born: str

    @classmethod
    def current(cls) -> Process:
        """Return this process."""
        return cls(socket.gethostname(), _space(), os.getpid(), _born(os.getpid()) or "")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Process:
        """Read it back from JSON values.

        Raises:
            KeyError: A field is missing.
        """
        return cls(values["host"], values["space"], int(values["pid"]), values["born"])

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return asdict(self)

    def is_dead(self) -> bool:
        """Tell whether it is certainly gone; False for a process of another host, or unknown."""
        if not self.space or self.space != _space():
            return False
        return _born(self.pid) != self.born

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


def _space() -> str:
    """Return what tells one kernel and PID name space from all others, empty without ``/proc``."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot}/{os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _born(pid: int) -> str | None:
    """Return when a process started, None if it is not there or only waits to be reaped."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    # The name in parentheses may hold spaces and parentheses itself.
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else fields[19]
