"""Where a lease is kept in a store behind a URL.

There is no rename there that tells which of two took a file away, only a file that one alone can
create. So who follows a dead holder first creates a mark that names the dead one, and looks again:
whoever comes late finds another holder, and leaves it alone.
"""

from __future__ import annotations

import json
import uuid

from trainables.remote import Remote


class RemoteSpot:
    """The object ``leases/<kind>-<key>``.

    Args:
        remote: The files of the store.
        name: ``<kind>-<key>``.
        expiry: Seconds after which the mark of a follower that died itself is removed.
    """

    def __init__(self, remote: Remote, name: str, expiry: float) -> None:
        self._remote = remote
        self._name = f"leases/{name}"
        self._expiry = expiry

    def create(self, content: bytes) -> bool:
        """Create it if nobody has."""
        return self._remote.create(self._name, content)

    def read(self) -> bytes | None:
        """Return what its holder wrote, None if it is gone."""
        return self._remote.read(self._name)

    def beat(self, content: bytes) -> None:
        """Write it again, which makes it fresh, unless another has taken over."""
        if self.read() == content:
            self._remote.write(self._name, content)

    def age(self) -> float | None:
        """Return the seconds since it was written, by the clock of the service."""
        probe = f"leases/probe-{uuid.uuid4().hex}"
        self._remote.write(probe, b"")
        try:
            now, then = self._remote.modified(probe), self._remote.modified(self._name)
        finally:
            self._remote.remove(probe)
        return None if now is None or then is None else (now - then).total_seconds()

    def follow(self, token: str | None, content: bytes) -> bool:
        """Take it from the holder with this token, and from no other."""
        mark = f"{self._name}.after-{token or 'unknown'}"
        if not self._remote.create(mark, content):
            self._clear(mark)
            return False
        try:
            if _token(self.read()) != token:
                return False
            self._remote.write(self._name, content)
        finally:
            self._remote.remove(mark)
        return True

    def remove(self, token: str) -> None:
        """Remove it, if it is still the one of this holder."""
        if _token(self.read()) == token:
            self._remote.remove(self._name)

    def _clear(self, mark: str) -> None:
        """Remove the mark of a follower that died before it had taken over."""
        spot = RemoteSpot(self._remote, mark.removeprefix("leases/"), self._expiry)
        age = spot.age()
        if age is not None and age > self._expiry:
            self._remote.remove(mark)


def _token(content: bytes | None) -> str | None:
    try:
        token = json.loads(content or b"").get("token")
    except (ValueError, AttributeError):
        return None
    return token if isinstance(token, str) else None
