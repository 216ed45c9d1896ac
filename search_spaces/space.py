"""A search space: which parameters there are, and how a point of it is drawn and written down.

A *point* is the nested mapping that overrides the student's base values::

    {"loss": {"name": "kd", "temperature": 3.1}, "alpha": 1.0, "teachers": ["bert", "bert_cnn"]}
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from search_spaces.domains import Choice, Fixed, Int
from search_spaces.errors import SpaceError, SpaceProblem
from search_spaces.groups import N_TEACHERS, Group, Subsets
from search_spaces.node import Corner, Leaf, Node, Suggest, compact
from search_spaces.parsing import Parser

TEACHERS = "teachers"


@dataclass(frozen=True)
class Space:
    """A parsed search space; equal spaces have equal JSON."""

    root: Group

    @classmethod
    def parse(cls, mapping: Mapping[str, Any]) -> Space:
        """Read a space as written in YAML.

        Raises:
            SpaceError: Lists every problem with its key path below the space.
        """
        parser = Parser()
        space = cls(parser.space(mapping))
        known = {problem.where for problem in parser.problems}
        problems = [*parser.problems, *(p for p in space._check() if p.where not in known)]
        if problems:
            raise SpaceError(problems)
        return space

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Space:
        """Read what `to_json` wrote."""
        return cls.parse(document)

    def to_json(self) -> dict[str, Any]:
        """Return the space as plain data, with the choice of teachers if that was resolved."""
        return self.root.to_json()

    @property
    def keys(self) -> tuple[str, ...]:
        """The top-level keys, in the order written."""
        return tuple(name for name, _ in self.root.fields)

    def with_teachers(self, names: Sequence[str], excluded: Collection[str] = ()) -> Space:
        """Return the space for these teachers: ``n_teachers`` becomes a choice of subsets.

        Every point of the result has the key ``teachers``; all of them if nothing was said.

        Args:
            names: All teachers of the config, in its order.
            excluded: Those of them that turned out to be unusable: numbers and lists shrink to
                what is left.

        Raises:
            SpaceError: A teacher is unknown, more are asked for than there are, or none is left.
        """
        fields = dict(self.root.fields)
        left = tuple(name for name in names if name not in excluded)
        if TEACHERS in fields:
            problems = _check_teachers(fields[TEACHERS], names)
            if problems:
                raise SpaceError(problems)
            if excluded:
                fields[TEACHERS] = _without(fields[TEACHERS], excluded)
        elif N_TEACHERS in fields:
            sizes = _sizes(fields.pop(N_TEACHERS)) or []
            fields[TEACHERS] = _subsets(left, _shrunk(sizes, len(left)) if excluded else sizes)
        else:
            fields[TEACHERS] = Fixed(list(left))
        return Space(Group(tuple(fields.items())))

    def sample(self, suggest: Suggest) -> dict[str, Any]:
        """Draw a point, asking ``suggest`` for each active parameter by its path."""
        return self.root.sample(suggest, "")

    def paths_of(self, point: Mapping[str, Any]) -> dict[str, Any]:
        """Return the suggested parameters that give ``point``: what to enqueue for it.

        Raises:
            ValueError: The point is not of this space.
        """
        found = self.root.match(point, "")
        if found is None:
            raise ValueError(f"the point is not in the search space: {dict(point)}")
        return found

    def contains(self, point: Mapping[str, Any]) -> bool:
        """Tell whether `sample` could return ``point``."""
        return self.root.match(point, "") is not None

    def default_point(self, prefer: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Return the point to try first: first options, middles of ranges, all teachers.

        Args:
            prefer: Better values than the middle by path, e.g. a component's own defaults; a
                value outside its range is ignored.
        """
        return self.root.default("", prefer or {})

    def grid_points(self, prefer: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
        """Return one point per combination of the grids, the rest at its default; may be empty."""
        return self.root.grid("", prefer or {}) or []

    def size(self) -> int | None:
        """Count the distinct points, or None if a parameter is continuous."""
        return self.root.size()

    def leaves(self) -> Iterator[Leaf]:
        """List every parameter a sampler may be asked for, conditional ones included."""
        return self.root.leaves("", (), None)

    def corners(self) -> list[Corner]:
        """Return points that together touch every option and both ends of every range."""
        return self.root.corners()

    @staticmethod
    def flatten(point: Mapping[str, Any]) -> dict[str, Any]:
        """Return flat names and JSON scalars: ``loss=kd``, ``loss.temperature=4.0``.

        A list of teachers becomes ``teachers=bert+bert_cnn`` and ``n_teachers=2``.
        """
        result = dict(_flat(point, ""))
        if isinstance(point.get(TEACHERS), (list, tuple)):
            result[N_TEACHERS] = len(point[TEACHERS])
        return result

    def _check(self) -> list[SpaceProblem]:
        fields = dict(self.root.fields)
        problems = []
        if N_TEACHERS in fields:
            if TEACHERS in fields:
                problems.append(
                    SpaceProblem(N_TEACHERS, "cannot be searched beside teachers", "keep one")
                )
            problems.extend(_check_sizes(fields[N_TEACHERS]))
        try:
            self.root.grid("", {})
        except ValueError as error:
            problems.append(SpaceProblem("", str(error), "use choice instead of grid"))
        return problems


def _sizes(node: Node) -> list[Any] | None:
    """Return the numbers of teachers a node stands for, or None if it is no such node."""
    if isinstance(node, Int):
        return list(range(node.low, node.high + 1))
    if isinstance(node, Fixed):
        return [node.value]
    if isinstance(node, Choice) and all(isinstance(option, Fixed) for option in node.options):
        return sorted((o.value for o in node.options if isinstance(o, Fixed)), key=_as_number)
    return None


def _check_sizes(node: Node) -> list[SpaceProblem]:
    sizes = _sizes(node)
    if sizes and all(isinstance(s, int) and not isinstance(s, bool) and s > 0 for s in sizes):
        return []
    cure = "write {int: [1, 3]}, {choice: [1, 3]} or a number"
    return [SpaceProblem(N_TEACHERS, "must be whole numbers from 1 up", cure)]


def _subsets(names: tuple[str, ...], sizes: Sequence[int]) -> Subsets:
    try:
        return Subsets(names, tuple(sizes))
    except ValueError as error:
        cure = f"use at most {len(names)}, or add teachers"
        raise SpaceError([SpaceProblem(N_TEACHERS, str(error), cure)]) from error


def _shrunk(sizes: Sequence[int], most: int) -> list[int]:
    return [size for size in sizes if size <= most] or [most]


def _without(node: Node, excluded: Collection[str]) -> Node:
    """Take teachers out of a list, or of every list of a choice."""
    if isinstance(node, Subsets):
        left = tuple(name for name in node.names if name not in excluded)
        return _subsets(left, _shrunk(node.sizes, len(left)))
    lists = node.options if isinstance(node, Choice) else (node,)
    kept: list[Node] = []
    for option in lists:
        names = [name for name in option.default("", {}) if name not in excluded]
        if names and Fixed(names) not in kept:
            kept.append(Fixed(names))
    if not kept:
        cure = "list one that is not excluded"
        raise SpaceError([SpaceProblem(TEACHERS, "holds only excluded teachers", cure)])
    return type(node)(tuple(kept)) if isinstance(node, Choice) else kept[0]


def _check_teachers(node: Node, names: Sequence[str]) -> list[SpaceProblem]:
    problems = []
    for corner in node.corners():
        where = TEACHERS + corner.where.get((), "")
        if not isinstance(corner.value, list) or not corner.value:
            cure = "write a list of teacher names, or {choice: [[a], [a, b]]}"
            problems.append(SpaceProblem(where, "must be a list of at least one teacher", cure))
            continue
        if len(set(map(str, corner.value))) < len(corner.value):
            problems.append(SpaceProblem(where, "names a teacher twice", "name each once"))
        for name in corner.value:
            if name not in names:
                close = difflib.get_close_matches(str(name), names, n=1)
                cure = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(names)}"
                problems.append(SpaceProblem(where, f"there is no teacher {name!r}", cure))
    return problems


def _flat(value: Mapping[str, Any], path: str) -> Iterator[tuple[str, Any]]:
    for key, inner in value.items():
        name = f"{path}.{key}" if path else key
        if path and key == "name":
            yield path, inner
        elif isinstance(inner, Mapping):
            yield from _flat(inner, name)
        else:
            yield name, inner if isinstance(inner, (bool, int, float)) else compact(inner)


def _as_number(value: Any) -> float:
    return value if isinstance(value, (int, float)) else float("inf")
