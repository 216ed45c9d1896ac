"""Errors of the orchestrator and the exit code each one ends with.

::

    OrchestratorError               exit 1
    ├── ConfigError                 exit 2   all problems of one config, collected
    ├── UsageError                  exit 2   a verb was called with something that does not exist
    ├── PreflightError              exit 3   all problems found before anything was spent
    ├── SweepLocked                 exit 3   another driver works on this sweep
    ├── FailureBudgetExceeded       exit 4   finished, but too many trials failed
    └── Interrupted                 exit 130 stopped by the user; the same command continues
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True)
class Problem:
    """One thing wrong, where it is, and how to mend it.

    Attributes:
        where: Dotted key path, file or resource the problem is in.
        what: What is wrong, with the offending value.
        cure: What to do about it; may be empty if ``what`` makes it obvious.
    """

    where: str
    what: str
    cure: str = ""

    def __str__(self) -> str:
        text = f"{self.where}: {self.what}" if self.where else self.what
        return f"{text}; {self.cure}" if self.cure else text


class OrchestratorError(Exception):
    """Base class; the CLI prints the message without a traceback."""

    exit_code: ClassVar[int] = 1


class ProblemsError(OrchestratorError):
    """An error that carries a list of problems, all shown at once."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class ConfigError(ProblemsError):
    """The config is invalid; every problem of it is listed."""

    exit_code = 2


class UsageError(OrchestratorError):
    """The command names something that does not exist or cannot be done."""

    exit_code = 2


class PreflightError(ProblemsError):
    """Checks made before anything is spent have failed."""

    exit_code = 3


class SweepLocked(OrchestratorError):
    """Another driver holds this sweep."""

    exit_code = 3


class FailureBudgetExceeded(OrchestratorError):
    """More trials failed than the budget allows."""

    exit_code = 4


class Interrupted(OrchestratorError):
    """The user stopped the sweep; everything so far is kept."""

    exit_code = 130
