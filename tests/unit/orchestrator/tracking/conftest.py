from pathlib import Path

import pytest

from orchestrator.tracking.delivery import Rejected, Unavailable
from orchestrator.tracking.runs import RunUpdate


class FakeMlflow:
    """A destination that remembers, and fails when told to."""

    def __init__(self) -> None:
        self.runs: dict[str, dict[str, str]] = {}
        self.points: dict[tuple[str, str, int], list[float]] = {}
        self.writes = 0
        self.down = False
        self.poison: set[float] = set()
        self.ended: list[int] = []

    def connect(self) -> "FakeMlflow":
        self._check()
        return self

    def adopt(self, sweep: str) -> bool:
        self._check()
        return sweep in self.runs

    def end_orphans(self, sweep: str, end_ms: int) -> None:
        self._check()
        self.ended.append(end_ms)

    def write(self, update: RunUpdate, folder: Path) -> None:
        self._check()
        self.writes += 1
        if any(point.value in self.poison for point in update.metrics):
            raise Rejected("poisonous value")
        self.runs.setdefault(update.run.key, {}).update(update.tags)
        for point in update.metrics:
            values = self.points.setdefault((update.run.key, point.name, point.step), [])
            if point.value not in values:
                values.append(point.value)

    def _check(self) -> None:
        if self.down:
            raise Unavailable("nobody home")


@pytest.fixture
def fake() -> FakeMlflow:
    return FakeMlflow()
