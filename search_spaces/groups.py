"""The nodes that hold other things: mappings of named nodes, and subsets of the teachers."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from search_spaces.domains import Fixed
from search_spaces.node import Corner, Key, Label, Leaf, Node, Suggest, join

MAX_GRID = 4096
MAX_SUBSETS = 64
N_TEACHERS = "n_teachers"


@dataclass(frozen=True)
class Group(Node):
    """A mapping whose values are nodes: the space itself, or a component and its parameters."""

    fields: tuple[tuple[str, Node], ...]

    @property
    def name(self) -> str | None:
        """The component this group configures, if its ``name`` is fixed."""
        node = dict(self.fields).get("name")
        return node.value if isinstance(node, Fixed) and isinstance(node.value, str) else None

    def sample(self, suggest: Suggest, path: str) -> dict[str, Any]:
        """Draw every field."""
        return {name: node.sample(suggest, join(path, name)) for name, node in self.fields}

    def default(self, path: str, prefer: Mapping[str, Any]) -> dict[str, Any]:
        """Return the defaults of all fields."""
        return {name: node.default(join(path, name), prefer) for name, node in self.fields}

    def match(self, value: Any, path: str) -> dict[str, Any] | None:
        """Match a mapping with exactly these fields."""
        if not isinstance(value, Mapping) or value.keys() != {name for name, _ in self.fields}:
            return None
        result: dict[str, Any] = {}
        for name, node in self.fields:
            found = node.match(value[name], join(path, name))
            if found is None:
                return None
            result |= found
        return result

    def grid(self, path: str, prefer: Mapping[str, Any]) -> list[Any] | None:
        """Combine the grids of the fields; the other fields stay at their defaults."""
        below = {name: node.grid(join(path, name), prefer) for name, node in self.fields}
        if all(values is None for values in below.values()):
            return None
        total = math.prod(len(values) for values in below.values() if values is not None)
        if total > MAX_GRID:
            raise ValueError(f"the grids have {total} combinations, at most {MAX_GRID} are run")
        columns = [
            [node.default(join(path, name), prefer)] if below[name] is None else below[name] or []
            for name, node in self.fields
        ]
        names = [name for name, _ in self.fields]
        return [dict(zip(names, row, strict=True)) for row in itertools.product(*columns)]

    def corners(self) -> list[Corner]:
        """Return as many corners as the field with the most has: every value once, no product."""
        below = {name: node.corners() for name, node in self.fields}
        count = max((len(corners) for corners in below.values()), default=1)
        result = []
        for position in range(count):
            # A field that has run out keeps its first corner.
            row = {n: c[position] if position < len(c) else c[0] for n, c in below.items()}
            where: dict[Key, str] = {(): ""}
            for name, corner in row.items():
                where |= {(name, *key): f".{name}{text}" for key, text in corner.where.items()}
            result.append(Corner({name: corner.value for name, corner in row.items()}, where))
        return result

    def leaves(self, path: str, key: Key, owner: str | None) -> Iterator[Leaf]:
        """List what the fields may ask for."""
        for name, node in self.fields:
            yield from node.leaves(join(path, name), (*key, name), self.name or owner)

    def size(self) -> int | None:
        """Multiply the fields."""
        sizes = [node.size() for _, node in self.fields]
        if any(size is None for size in sizes):
            return None
        return math.prod(size for size in sizes if size is not None)

    def label(self) -> Label | None:
        """Return the component's name."""
        return self.name

    def to_json(self) -> dict[str, Any]:
        """Return the mapping."""
        return {name: node.to_json() for name, node in self.fields}


@dataclass(frozen=True)
class Subsets(Node):
    """A list of teachers: first how many, then which; both are conditional parameters.

    The sampler is asked for ``n_teachers``, then, if there is more than one way to pick that many,
    for ``n_teachers.2.subset``, whose labels look like ``bert+bert_cnn``.

    Attributes:
        names: All teachers in the order of the config; every subset keeps this order.
        sizes: The numbers of teachers allowed, ascending.
    """

    names: tuple[str, ...]
    sizes: tuple[int, ...]

    def __post_init__(self) -> None:
        if not self.sizes or list(self.sizes) != sorted(set(self.sizes)):
            raise ValueError(f"sizes must be ascending and differ, got {list(self.sizes)}")
        if self.sizes[0] < 1:
            raise ValueError(f"at least 1 teacher is needed, got {self.sizes[0]}")
        if self.sizes[-1] > len(self.names):
            raise ValueError(
                f"asks for {self.sizes[-1]} teachers, but the config lists {len(self.names)}"
            )

    def subsets(self, size: int) -> list[tuple[str, ...]]:
        """List the subsets of one size; only the first teachers if there are over 64."""
        if math.comb(len(self.names), size) > MAX_SUBSETS:
            return [self.names[:size]]
        return list(itertools.combinations(self.names, size))

    def sample(self, suggest: Suggest, path: str) -> list[str]:
        """Ask for the number of teachers, then for which."""
        size = self._sample_size(suggest)
        labelled = {"+".join(subset): subset for subset in self.subsets(size)}
        labels = list(labelled)
        label = suggest.categorical(_subset_path(size), labels) if len(labels) > 1 else labels[0]
        return list(labelled[str(label)])

    def default(self, path: str, prefer: Mapping[str, Any]) -> list[str]:
        """Return as many teachers as allowed: a sweep that does not search them uses them all."""
        return list(self.subsets(self.sizes[-1])[0])

    def match(self, value: Any, path: str) -> dict[str, Any] | None:
        """Match a list that is one of the subsets, in the same order."""
        if not isinstance(value, (list, tuple)) or len(value) not in self.sizes:
            return None
        subsets = self.subsets(len(value))
        if tuple(value) not in subsets:
            return None
        result: dict[str, Any] = {N_TEACHERS: len(value)} if len(self.sizes) > 1 else {}
        if len(subsets) > 1:
            result[_subset_path(len(value))] = "+".join(value)
        return result

    def corners(self) -> list[Corner]:
        """Return the first teachers, once for each number of them."""
        return [Corner(list(self.names[:size]), {(): ""}) for size in self.sizes]

    def leaves(self, path: str, key: Key, owner: str | None) -> Iterator[Leaf]:
        """List the number, then the subset at each number."""
        if len(self.sizes) > 1:
            yield Leaf(N_TEACHERS, key, owner, self)
        for size in self.sizes:
            if len(self.subsets(size)) > 1:
                yield Leaf(_subset_path(size), key, owner, self)

    def size(self) -> int:
        """Count the subsets of all sizes."""
        return sum(len(self.subsets(size)) for size in self.sizes)

    def to_json(self) -> Any:
        """Return ``{subsets: {names: [...], sizes: [...]}}``."""
        return {"subsets": {"names": list(self.names), "sizes": list(self.sizes)}}

    def _sample_size(self, suggest: Suggest) -> int:
        low, high = self.sizes[0], self.sizes[-1]
        if low == high:
            return low
        if len(self.sizes) == high - low + 1:
            return suggest.integer(N_TEACHERS, low, high, False)
        return int(suggest.categorical(N_TEACHERS, self.sizes))


def _subset_path(size: int) -> str:
    return f"{N_TEACHERS}.{size}.subset"
