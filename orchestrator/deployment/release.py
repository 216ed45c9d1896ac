"""Which code runs here: nodes of one cluster must agree on it.

Functions of importable modules are pickled by reference, so a node with another release would run
other code under the same name.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

VARIABLE = "ORCHESTRATOR_GIT_SHA"  # set by the image, which has no checkout
_VERSION_LABEL = "orchestrator-version"
_GIT_LABEL = "orchestrator-git"


@dataclass(frozen=True)
class Release:
    """A version and the commit it was built from.

    Attributes:
        version: Of the distribution.
        git: The commit, or ``unknown``.
    """

    version: str
    git: str

    def __str__(self) -> str:
        return f"{self.version} ({self.git[:12]})"

    def labels(self) -> str:
        """Return it as the argument of ``ray start --labels``."""
        return f"{_VERSION_LABEL}={self.version},{_GIT_LABEL}={self.git}"

    @classmethod
    def of_labels(cls, labels: Mapping[str, str]) -> Release:
        """Read it from the labels of a node."""
        return cls(labels.get(_VERSION_LABEL, "unknown"), labels.get(_GIT_LABEL, "unknown"))


def this_release() -> Release:
    """Return the release that is installed here."""
    version = metadata.version("kd-orchestrator")
    return Release(version, os.environ.get(VARIABLE) or _commit())


def _commit() -> str:
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=5, check=True)
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return done.stdout.strip()
