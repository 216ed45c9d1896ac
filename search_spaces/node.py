"""What every part of a search space can do, and the two small records they exchange.

A space is a tree of nodes: ranges and fixed values at the leaves, choices and groups above them.
A *path* names a parameter for the sampler (``loss.kd.temperature``: it holds the label of the
option it depends on); a *key* names a value in the sampled point (``("loss", "temperature")``).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

Label = str | int | float | bool
Key = tuple[str, ...]


class Suggest(Protocol):
    """Where values come from: a sampler that is asked for one parameter at a time."""

    def uniform(self, path: str, low: float, high: float) -> float:
        """Return a number of ``[low, high]``."""

    def log_uniform(self, path: str, low: float, high: float) -> float:
        """Return a number of ``[low, high]`` whose logarithm is searched evenly."""

    def integer(self, path: str, low: int, high: int, log: bool) -> int:
        """Return a whole number of ``[low, high]``; both ends are included."""

    def categorical(self, path: str, labels: Sequence[Label]) -> Label:
        """Return one of ``labels``."""


class Corner(NamedTuple):
    """A value at the edge of a node, and where in the YAML each of its keys was written."""

    value: Any
    where: Mapping[Key, str]


class Leaf(NamedTuple):
    """A parameter that a sampler is asked for.

    Attributes:
        path: Its name for the sampler.
        key: Where its value ends up in the point; its prefix for a choice between mappings.
        owner: The ``name`` of the component it belongs to, or None.
        node: The domain its value is drawn from.
    """

    path: str
    key: Key
    owner: str | None
    node: Node


class Node:
    """A part of a search space; what most nodes answer is answered here."""

    def sample(self, suggest: Suggest, path: str) -> Any:
        """Draw a value, asking ``suggest`` for each parameter that is active."""
        raise NotImplementedError

    def default(self, path: str, prefer: Mapping[str, Any]) -> Any:
        """Return the value to try first; ``prefer`` maps paths of ranges to better midpoints."""
        raise NotImplementedError

    def match(self, value: Any, path: str) -> dict[str, Any] | None:
        """Return the parameters that would draw ``value``, or None if nothing would."""
        raise NotImplementedError

    def corners(self) -> list[Corner]:
        """Return values that together touch every option and both ends of every range."""
        raise NotImplementedError

    def to_json(self) -> Any:
        """Return what would be written in YAML."""
        raise NotImplementedError

    def grid(self, path: str, prefer: Mapping[str, Any]) -> list[Any] | None:
        """Return one value per combination of the grids below, or None if there is no grid."""
        return None

    def leaves(self, path: str, key: Key, owner: str | None) -> Iterator[Leaf]:
        """List the parameters that may be asked for."""
        yield from ()

    def size(self) -> int | None:
        """Count the distinct values, or None if there is a continuum of them."""
        return None

    def label(self) -> Label | None:
        """Return a short name for this node as an option of a choice, or None for no good one."""
        return None


def join(path: str, name: Label) -> str:
    """Append a segment to a path; the root is the empty path."""
    return f"{path}.{name}" if path else str(name)


def compact(value: Any) -> str:
    """Write a JSON value on one line for people: ``a+b`` for words, else JSON without spaces."""
    if value is None:
        return "none"
    if isinstance(value, str):
        return value
    if isinstance(value, (list, tuple)) and value and all(isinstance(v, str) for v in value):
        return "+".join(value)
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def same(left: Any, right: Any) -> bool:
    """Compare JSON values; unlike ``==``, ``True`` is not ``1``, and tuples are lists."""
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, Mapping) and isinstance(right, Mapping):
        return left.keys() == right.keys() and all(same(left[k], right[k]) for k in left)
    if isinstance(left, (list, tuple)) and isinstance(right, (list, tuple)):
        return len(left) == len(right) and all(map(same, left, right))
    return bool(left == right)
