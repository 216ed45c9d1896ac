"""The domains a value can be searched in: ranges, fixed values, choices and grids.

Each is a frozen record that checks itself when made and is a `Node`.
YAML forms: ``{uniform: [a, b]}``, ``{log_uniform: [a, b]}``, ``{int: [a, b]}`` (with
``log: true`` if wanted), ``{choice: [...]}``, ``{grid: [...]}``, ``{fixed: value}``, or the value.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

from search_spaces.node import Corner, Key, Label, Leaf, Node, Suggest, compact, join, same

_LONGEST_LABEL = 60


@dataclass(frozen=True)
class _Range(Node):
    """What the three ranges share: two ends, the default that lies between, matching by value."""

    low: float
    high: float

    keyword: ClassVar[str]

    def __post_init__(self) -> None:
        if not all(_is_number(end) and math.isfinite(end) for end in (self.low, self.high)):
            raise ValueError(f"both ends must be finite numbers, got {self._written()}")
        if not self.low < self.high:
            raise ValueError(f"low < high must hold, got {self._written()}")

    def default(self, path: str, prefer: Mapping[str, Any]) -> Any:
        preferred = prefer.get(path)
        return preferred if self.match(preferred, path) is not None else self._middle()

    def match(self, value: Any, path: str) -> dict[str, Any] | None:
        inside = _is_number(value) and self.low <= value <= self.high
        return {path: value} if inside else None

    def corners(self) -> list[Corner]:
        return [Corner(end, {(): ""}) for end in (self.low, self.high)]

    def leaves(self, path: str, key: Key, owner: str | None) -> Iterator[Leaf]:
        yield Leaf(path, key, owner, self)

    def label(self) -> Label | None:
        return self.keyword

    def to_json(self) -> Any:
        return {self.keyword: [self.low, self.high]}

    def _middle(self) -> Any:
        return (self.low + self.high) / 2

    def _written(self) -> str:
        return f"{{{self.keyword}: [{self.low}, {self.high}]}}"


@dataclass(frozen=True)
class Uniform(_Range):
    """A number between ``low`` and ``high``."""

    keyword: ClassVar[str] = "uniform"

    def sample(self, suggest: Suggest, path: str) -> float:
        """Ask for a number."""
        return suggest.uniform(path, self.low, self.high)


@dataclass(frozen=True)
class LogUniform(_Range):
    """A positive number between ``low`` and ``high``, searched evenly on the log scale."""

    keyword: ClassVar[str] = "log_uniform"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.low <= 0:
            raise ValueError(f"low > 0 must hold on a log scale, got {self._written()}")

    def sample(self, suggest: Suggest, path: str) -> float:
        """Ask for a number on the log scale."""
        return suggest.log_uniform(path, self.low, self.high)

    def _middle(self) -> float:
        return math.sqrt(self.low) * math.sqrt(self.high)


@dataclass(frozen=True)
class Int(_Range):
    """A whole number from ``low`` to ``high``, both included; not asked for if they are equal."""

    low: int
    high: int
    log: bool = False

    keyword: ClassVar[str] = "int"

    def __post_init__(self) -> None:
        if not all(isinstance(e, int) and not isinstance(e, bool) for e in (self.low, self.high)):
            raise ValueError(f"both ends must be whole numbers, got {self._written()}")
        if self.low > self.high:
            raise ValueError(f"low <= high must hold, got {self._written()}")
        if self.log and self.low < 1:
            raise ValueError(f"low >= 1 must hold on a log scale, got {self._written()}")

    def sample(self, suggest: Suggest, path: str) -> int:
        """Ask for a whole number, unless there is only one."""
        if self.low == self.high:
            return self.low
        return suggest.integer(path, self.low, self.high, self.log)

    def match(self, value: Any, path: str) -> dict[str, Any] | None:
        """Match whole numbers only; nothing is asked for if there is only one."""
        if not isinstance(value, int):
            return None
        found = super().match(value, path)
        return {} if found and self.low == self.high else found

    def leaves(self, path: str, key: Key, owner: str | None) -> Iterator[Leaf]:
        """List this parameter, unless there is only one value."""
        if self.low < self.high:
            yield Leaf(path, key, owner, self)

    def size(self) -> int:
        """Count the whole numbers."""
        return self.high - self.low + 1

    def to_json(self) -> Any:
        """Return ``{int: [low, high]}``, with ``log: true`` on a log scale."""
        return super().to_json() | ({"log": True} if self.log else {})

    def _middle(self) -> int:
        if self.log:
            return round(math.sqrt(self.low) * math.sqrt(self.high))
        return (self.low + self.high) // 2


@dataclass(frozen=True)
class Fixed(Node):
    """A value that is not searched: any JSON value, taken as it is."""

    value: Any

    def sample(self, suggest: Suggest, path: str) -> Any:
        """Return the value; nothing is asked for."""
        return copy.deepcopy(self.value)

    def default(self, path: str, prefer: Mapping[str, Any]) -> Any:
        """Return the value."""
        return copy.deepcopy(self.value)

    def match(self, value: Any, path: str) -> dict[str, Any] | None:
        """Match the value itself."""
        return {} if same(self.value, value) else None

    def corners(self) -> list[Corner]:
        """Return the value as the only corner."""
        return [Corner(copy.deepcopy(self.value), {(): ""})]

    def size(self) -> int:
        """One value."""
        return 1

    def label(self) -> Label | None:
        """Return a number or a flag as itself, anything else as text."""
        if isinstance(self.value, (bool, int, float)):
            return self.value
        return compact(self.value)

    def to_json(self) -> Any:
        """Return the value, wrapped in ``{fixed: ...}`` if it holds others."""
        # A mapping could be read back as a domain or a group, so it is wrapped.
        value = copy.deepcopy(self.value)
        return {"fixed": value} if isinstance(value, (dict, list)) else value


@dataclass(frozen=True)
class Choice(Node):
    """One of several options, each of which may hold parameters of its own.

    Attributes:
        options: At least one; a choice of one is not asked for.
    """

    options: tuple[Node, ...]

    keyword: ClassVar[str] = "choice"

    def __post_init__(self) -> None:
        if not self.options:
            raise ValueError("at least one option must be given, got an empty list")
        labels: list[Label] = []
        for option in self.options:
            label = option.label()
            if isinstance(option, Fixed) and any(label == known for known in labels):
                raise ValueError(f"options must differ, got {label!r} twice")
            labels.append(label if label is not None else "")

    @cached_property
    def labels(self) -> tuple[Label, ...]:
        """The options' names; the second ``kd`` is called ``kd#2``."""
        result: list[Label] = []
        for position, option in enumerate(self.options, start=1):
            name = option.label()
            if name is None or (isinstance(name, str) and len(name) > _LONGEST_LABEL):
                name = f"option{position}"
            label, copy_number = name, 1
            while label in result:
                copy_number += 1
                label = f"{name}#{copy_number}"
            result.append(label)
        return tuple(result)

    def sample(self, suggest: Suggest, path: str) -> Any:
        """Ask for a label, then for what that option needs."""
        label = suggest.categorical(path, self.labels) if len(self.options) > 1 else self.labels[0]
        option = self.options[self.labels.index(label)]
        return option.sample(suggest, join(path, label))

    def default(self, path: str, prefer: Mapping[str, Any]) -> Any:
        """Return the first option's default."""
        return self.options[0].default(join(path, self.labels[0]), prefer)

    def match(self, value: Any, path: str) -> dict[str, Any] | None:
        """Match the first option that could have drawn the value."""
        for label, option in zip(self.labels, self.options, strict=True):
            found = option.match(value, join(path, label))
            if found is not None:
                return ({path: label} if len(self.options) > 1 else {}) | found
        return None

    def grid(self, path: str, prefer: Mapping[str, Any]) -> list[Any] | None:
        """Join the grids of the options that have one."""
        below = [o.grid(p, prefer) for p, o in self._below(path)]
        found = [values for values in below if values is not None]
        return [value for values in found for value in values] if found else None

    def corners(self) -> list[Corner]:
        """Return the corners of every option."""
        return [
            Corner(corner.value, _prefixed(corner.where, f".{self.keyword}[{index}]"))
            for index, option in enumerate(self.options)
            for corner in option.corners()
        ]

    def leaves(self, path: str, key: Key, owner: str | None) -> Iterator[Leaf]:
        """List the choice itself, then what its options may ask for."""
        if len(self.options) > 1:
            yield Leaf(path, key, owner, self)
        for below, option in self._below(path):
            yield from option.leaves(below, key, owner)

    def size(self) -> int | None:
        """Add up the options."""
        total = 0
        for option in self.options:
            count = option.size()
            if count is None:
                return None
            total += count
        return total

    def label(self) -> Label | None:
        """Return the keyword."""
        return self.keyword

    def to_json(self) -> Any:
        """Return ``{choice: [...]}``."""
        return {self.keyword: [option.to_json() for option in self.options]}

    def _below(self, path: str) -> list[tuple[str, Node]]:
        labelled = zip(self.labels, self.options, strict=True)
        return [(join(path, label), option) for label, option in labelled]


@dataclass(frozen=True)
class Grid(Choice):
    """A choice whose options are all run, in every combination with the other grids."""

    keyword: ClassVar[str] = "grid"

    def grid(self, path: str, prefer: Mapping[str, Any]) -> list[Any]:
        """Return one value per option, or more where an option holds grids."""
        result: list[Any] = []
        for below, option in self._below(path):
            values = option.grid(below, prefer)
            result.extend([option.default(below, prefer)] if values is None else values)
        return result


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _prefixed(where: Mapping[Key, str], prefix: str) -> dict[Key, str]:
    return {key: prefix + text for key, text in where.items()}
