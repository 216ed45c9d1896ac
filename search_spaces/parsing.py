"""Reads a mapping, as YAML gives it, into the nodes of a space, collecting every problem."""

from __future__ import annotations

import copy
import difflib
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from search_spaces.domains import Choice, Fixed, Grid, Int, LogUniform, Uniform
from search_spaces.errors import SpaceProblem
from search_spaces.groups import Group, Subsets
from search_spaces.node import Node

COMPONENT_KEYS = frozenset({"loss", "weighting", "hint", "schedule", "model"})
"""Keys of a space whose bare string ``kd`` means ``{name: kd}``."""

DOMAINS = ("uniform", "log_uniform", "int", "choice", "grid", "fixed")

# What the same thing is called in other tools.
_ALIASES = {
    "loguniform": "log_uniform",
    "log": "log_uniform",
    "float": "uniform",
    "range": "int",
    "randint": "int",
    "integer": "int",
    "categorical": "choice",
    "values": "choice",
    "options": "choice",
    "grid_search": "grid",
    "const": "fixed",
    "constant": "fixed",
}

_DEEPEST = 12


class Parser:
    """Parses nodes; ``problems`` holds what was wrong, and a stand-in node was returned for it."""

    def __init__(self) -> None:
        self.problems: list[SpaceProblem] = []

    def space(self, mapping: Any) -> Group:
        """Parse the mapping at the root, where ``model.filters`` is short for a nested mapping."""
        if not isinstance(mapping, Mapping):
            self._add("", f"must be a mapping of parameters to domains, got {_short(mapping)}", "")
            return Group(())
        fields = []
        for name, value in self._nested(mapping).items():
            fields.append((name, self.node(value, name, component=name in COMPONENT_KEYS)))
        return Group(tuple(fields))

    def node(self, value: Any, where: str, *, component: bool = False) -> Node:
        """Parse one value: a domain, a group of values, or something fixed."""
        if where.count(".") + where.count("[") > _DEEPEST:
            return self._bad(where, "is nested too deeply", "flatten the space")
        if isinstance(value, Mapping):
            return self._mapping(value, where, component)
        if component and isinstance(value, str):
            return Group((("name", Fixed(value)),))
        if component and isinstance(value, Sequence):
            return self._bad(where, "is a list", "write {choice: [...]} to search over it")
        if component and value is not None:
            return self._bad(where, f"must name a component, got {_short(value)}", "")
        return self._fixed(value, where)

    def _mapping(self, value: Mapping[Any, Any], where: str, component: bool) -> Node:
        keywords = [key for key in value if key in _PARSERS]
        if keywords and "name" not in value:
            extra = [key for key in value if key not in (keywords[0], "log")]
            if extra or ("log" in value and keywords != ["int"]):
                return self._bad(
                    where,
                    f"mixes the domain {keywords[0]!r} with {_listed(set(value) - {keywords[0]})}",
                    "a domain stands alone: {" + str(keywords[0]) + ": ...}",
                )
            return self._domain(keywords[0], value, where, component)
        if len(value) == 1 and not component:
            unknown = self._unknown_domain(value, where)
            if unknown is not None:
                return unknown
        return self._group(value, where)

    def _group(self, value: Mapping[Any, Any], where: str) -> Node:
        fields = []
        for name, inner in value.items():
            if not isinstance(name, str):
                self._add(where, f"the key {_short(name)} must be text", "put it in quotes")
                continue
            fields.append((name, self.node(inner, f"{where}.{name}")))
        return Group(tuple(fields))

    def _unknown_domain(self, value: Mapping[Any, Any], where: str) -> Node | None:
        (name, inner), *_ = value.items()
        if not isinstance(name, str) or not isinstance(inner, (list, tuple)):
            return None
        close = difflib.get_close_matches(name, DOMAINS, n=1, cutoff=0.7)
        meant = _ALIASES.get(name.lower()) or (close[0] if close else None)
        if meant is None:
            return None
        return self._bad(
            where,
            f"unknown domain {name!r}, did you mean {meant!r}?",
            f"known domains: {', '.join(DOMAINS)}",
        )

    def _domain(self, keyword: str, value: Mapping[Any, Any], where: str, component: bool) -> Node:
        log = value.get("log", False)
        if not isinstance(log, bool):
            return self._bad(where, f"log must be true or false, got {_short(log)}", "")
        try:
            return _PARSERS[keyword](self, value[keyword], where, component, log)
        except ValueError as error:
            return self._bad(where, str(error), "")

    def _options(self, keyword: str, value: Any, where: str, component: bool) -> tuple[Node, ...]:
        if not isinstance(value, (list, tuple)):
            raise ValueError(f"{keyword} needs a list of options, got {_short(value)}")
        options = []
        for index, item in enumerate(value):
            place = f"{where}.{keyword}[{index}]"
            if component and isinstance(item, Mapping) and not {"name", *_PARSERS} & set(item):
                self._add(place, "has no name", "write {name: ..., parameter: ...}")
            options.append(self.node(item, place, component=component))
        return tuple(options)

    def _fixed(self, value: Any, where: str) -> Node:
        fault = _not_json(value)
        return Fixed(value) if fault is None else self._bad(where, fault, "")

    def _nested(self, mapping: Mapping[Any, Any]) -> dict[str, Any]:
        """Turn dotted keys into nested mappings."""
        result: dict[str, Any] = {}
        for key, value in copy.deepcopy(dict(mapping)).items():
            if not isinstance(key, str) or not all(key.split(".")):
                self._add(str(key), "is not a parameter name", "")
                continue
            *parents, last = key.split(".")
            target: Any = result
            for parent in parents:
                target = target.setdefault(parent, {}) if isinstance(target, dict) else None
            if not isinstance(target, dict) or _is_domain(target) or last in target:
                self._add(key, "is given twice", "keep either the dotted key or the mapping")
                continue
            target[last] = value
        return result

    def _bad(self, where: str, what: str, cure: str) -> Node:
        self._add(where, what, cure)
        return Fixed(None)

    def _add(self, where: str, what: str, cure: str) -> None:
        self.problems.append(SpaceProblem(where, what, cure))


def _uniform(parser: Parser, value: Any, where: str, component: bool, log: bool) -> Node:
    return Uniform(*_ends("uniform", value))


def _log_uniform(parser: Parser, value: Any, where: str, component: bool, log: bool) -> Node:
    return LogUniform(*_ends("log_uniform", value))


def _int(parser: Parser, value: Any, where: str, component: bool, log: bool) -> Node:
    return Int(*_ends("int", value), log=log)


def _choice(parser: Parser, value: Any, where: str, component: bool, log: bool) -> Node:
    return Choice(parser._options("choice", value, where, component))


def _grid(parser: Parser, value: Any, where: str, component: bool, log: bool) -> Node:
    return Grid(parser._options("grid", value, where, component))


def _fixed(parser: Parser, value: Any, where: str, component: bool, log: bool) -> Node:
    if component and not isinstance(value, Mapping):
        return parser.node(value, where, component=True)
    return parser._fixed(value, where)


def _subsets(parser: Parser, value: Any, where: str, component: bool, log: bool) -> Node:
    """Read back what `Subsets.to_json` wrote; users write ``n_teachers`` instead."""
    try:
        return Subsets(tuple(value["names"]), tuple(value["sizes"]))
    except (TypeError, KeyError) as error:
        raise ValueError(f"subsets needs names and sizes, got {_short(value)}") from error


_PARSERS: dict[str, Callable[[Parser, Any, str, bool, bool], Node]] = {
    "uniform": _uniform,
    "log_uniform": _log_uniform,
    "int": _int,
    "choice": _choice,
    "grid": _grid,
    "fixed": _fixed,
    "subsets": _subsets,
}


def _ends(keyword: str, value: Any) -> tuple[Any, Any]:
    if not isinstance(value, (list, tuple)) or len(value) != 2:
        raise ValueError(f"{keyword} needs two ends, [low, high], got {_short(value)}")
    return value[0], value[1]


def _is_domain(mapping: Mapping[str, Any]) -> bool:
    return any(key in _PARSERS for key in mapping) and "name" not in mapping


def _not_json(value: Any) -> str | None:
    """Say why a value could not be written as JSON and read back the same, or None."""
    if value is None or isinstance(value, (str, bool, int)):
        return None
    if isinstance(value, float):
        return None if math.isfinite(value) else f"must be finite, got {value}"
    if isinstance(value, Mapping):
        if not all(isinstance(key, str) for key in value):
            return "has keys that are not text"
        return next(filter(None, map(_not_json, value.values())), None)
    if isinstance(value, (list, tuple)):
        return next(filter(None, map(_not_json, value)), None)
    return f"cannot hold a {type(value).__name__}"


def _listed(keys: set[Any]) -> str:
    return ", ".join(sorted(repr(key) for key in keys))


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
