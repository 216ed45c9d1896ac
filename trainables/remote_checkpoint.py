"""Epoch checkpoints in a store behind a URL, for the case that a node is lost.

An upload after every epoch would cost more than it saves: the epoch of a small student takes a
second. So one is made when the last is half a minute old, and never so often that uploads take
more than a tenth of the time. A trial that moves to another node repeats at most what came after.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from trainables.remote import Remote

UPLOAD_SECONDS = 30.0
MAX_SHARE = 0.1
_SUFFIX = ".safetensors"


class RemoteCheckpoint:
    """The uploaded states of one trial: ``checkpoints/<key[:2]>/<key>/<number>.safetensors``.

    The number counts what the trial has saved, on whatever node, so that no clocks are compared.

    Args:
        remote: The files of the store.
        key: Key of the trial's artifact.
        clock: Returns seconds that only grow.
    """

    def __init__(
        self, remote: Remote, key: str, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._remote = remote
        self._place = f"checkpoints/{key[:2]}/{key}"
        self._clock = clock
        self._due = clock() + UPLOAD_SECONDS
        self._saves = 0

    def continue_from(self, saves: int) -> None:
        """Go on counting where the state that was loaded had stopped."""
        self._saves = max(self._saves, saves)

    def count(self) -> int:
        """Return the number of the state that is about to be saved."""
        self._saves += 1
        return self._saves

    def upload(self, file: Path) -> None:
        """Upload the state that was saved last, if it is time; older ones are removed."""
        started = self._clock()
        if started < self._due:
            return
        older = self._numbers()
        self._remote.upload([(file, self._name(self._saves))])
        for number in older:
            if number < self._saves:
                self._remote.remove(self._name(number))
        now = self._clock()
        self._due = now + max(UPLOAD_SECONDS, (now - started) / MAX_SHARE)

    def download(self, file: Path, *, newer_than: int) -> bool:
        """Copy the newest uploaded state to a file; tells whether there is one that is newer."""
        number = max(self._numbers(), default=0)
        if number <= newer_than:
            return False
        self._saves = number  # also if it is torn: what is saved next must be the newest
        try:
            self._remote.download([(self._name(number), file)])
        except FileNotFoundError:
            return False  # removed in this moment, by who has made the artifact
        return True

    def clear(self) -> None:
        """Remove all of them."""
        self._remote.remove_all(self._place)

    def _numbers(self) -> list[int]:
        names = (name.rpartition("/")[2] for name in self._remote.names(self._place))
        stems = (name.removesuffix(_SUFFIX) for name in names if name.endswith(_SUFFIX))
        return [int(stem) for stem in stems if stem.isdecimal()]

    def _name(self, number: int) -> str:
        return f"{self._place}/{number:06}{_SUFFIX}"
