import random
from collections.abc import Sequence

import pytest

from search_spaces.node import Label


class RandomSuggest:
    """Draws at random and records what it was asked for."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.asked: dict[str, Label] = {}

    def _record(self, path: str, value: Label) -> Label:
        assert path not in self.asked, f"{path} was asked for twice"
        self.asked[path] = value
        return value

    def uniform(self, path: str, low: float, high: float) -> float:
        return float(self._record(path, self.random.uniform(low, high)))

    def log_uniform(self, path: str, low: float, high: float) -> float:
        value = low * (high / low) ** self.random.random()
        return float(self._record(path, min(max(value, low), high)))

    def integer(self, path: str, low: int, high: int, log: bool) -> int:
        return int(self._record(path, self.random.randint(low, high)))

    def categorical(self, path: str, labels: Sequence[Label]) -> Label:
        return self._record(path, self.random.choice(list(labels)))


@pytest.fixture
def suggest() -> type[RandomSuggest]:
    """The class of random samplers: call it with a seed."""
    return RandomSuggest
