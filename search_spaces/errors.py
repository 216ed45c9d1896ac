"""Errors that a user of a config file or a search space can mend.

::

    SearchSpaceError
    ├── SpaceError        domains of a space are wrong; every problem of it is listed
    ├── ConfigFileError   the file cannot be found, read or understood as YAML
    └── OverrideError     a ``--set key=value`` is not of that form or points nowhere
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class SpaceProblem(NamedTuple):
    """One thing wrong in a space: key path below the space, what is wrong, how to mend it."""

    where: str
    what: str
    cure: str = ""

    def __str__(self) -> str:
        text = f"{self.where}: {self.what}" if self.where else self.what
        return f"{text}; {self.cure}" if self.cure else text


class SearchSpaceError(Exception):
    """Base of every error of this package; its message tells what, where and how to mend it."""


class SpaceError(SearchSpaceError):
    """A search space is invalid; all of its problems are listed."""

    def __init__(self, problems: Sequence[SpaceProblem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class ConfigFileError(SearchSpaceError):
    """A config file or preset cannot be found, read or parsed."""


class OverrideError(SearchSpaceError):
    """An override is malformed, or leads through something that holds no keys."""
