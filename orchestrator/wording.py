"""Turns what is wrong with a config into problems in plain words, with key paths and cures."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, get_args

from pydantic import BaseModel

from orchestrator.errors import Problem
from orchestrator.schema import SweepConfig
from search_spaces.errors import SpaceProblem

Location = tuple[str | int, ...]

_TYPES = {
    "string_type": "text",
    "int_type": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "tuple_type": "a list",
    "model_type": "a mapping of keys to values",
    "finite_number": "a finite number",
}
_BOUNDS = {
    "greater_than_equal": ("ge", "at least"),
    "greater_than": ("gt", "greater than"),
    "less_than_equal": ("le", "at most"),
    "less_than": ("lt", "less than"),
}
_PATTERNS = {
    "a-z0-9_-": "1 to 64 of the characters a-z 0-9 _ -",
    "A-Za-z0-9_-": "1 to 64 of the characters A-Z a-z 0-9 _ -",
    "0-9a-f": "a sha256, 64 of the characters 0-9 a-f",
}
_EXAMPLES = {
    "name": "name: my-sweep",
    "data": "data: {path: train.csv}",
    "teachers": "teachers: [{name: bert, model: {name: bert, checkpoint: ...}}]",
    "model": "model: {name: bert, checkpoint: ...}",
}


def key_path(location: Iterable[str | int]) -> str:
    """Write a location as people do: ``teachers[0].model``."""
    path = ""
    for part in location:
        if isinstance(part, int):
            path += f"[{part}]"
        else:
            path += f".{part}" if path else part
    return path


def did_you_mean(given: Any, known: Iterable[str]) -> str:
    """Return ``did you mean 'x'?`` for the closest of ``known``, or the list of them."""
    names = list(dict.fromkeys(known))
    text = str(given)
    close = difflib.get_close_matches(text, names, n=1)
    close += [name for name in names if len(text) > 2 and name.startswith(text)]
    return f"did you mean {close[0]!r}?" if close else f"known: {', '.join(names) or 'none'}"


def short(value: Any) -> str:
    """Write a value in at most 60 characters."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def problems_of(
    errors: Sequence[Mapping[str, Any]], model: type[BaseModel] = SweepConfig
) -> list[tuple[Location, Problem]]:
    """Return each validation error as a problem, with the location it is at.

    Args:
        errors: What ``ValidationError.errors()`` returned.
        model: The model that was validated; its fields are what unknown keys are compared with.
    """
    locations = [error["loc"] for error in errors]
    result: list[tuple[Location, Problem]] = []
    for error in errors:
        location = error["loc"]
        nested = any(len(o) > len(location) and o[: len(location)] == location for o in locations)
        if error["type"] == "too_short" and nested:
            continue  # counts only the entries that are valid, and theirs are listed already
        inner = error.get("ctx", {}).get("problems")
        if inner is not None:
            result.extend((location, space_problem(problem, location)) for problem in inner)
        else:
            result.append((location, _problem(error, model)))
    return result


def space_problem(problem: SpaceProblem, location: Iterable[str | int]) -> Problem:
    """Return a problem of a search space, with the path of the space put before its own."""
    where = ".".join(filter(None, (key_path(location), problem.where)))
    return Problem(where, problem.what, problem.cure)


def _problem(error: Mapping[str, Any], model: type[BaseModel]) -> Problem:
    kind, location, value = error["type"], error["loc"], error["input"]
    context = error.get("ctx", {})
    where = key_path(location)
    if kind == "fault":
        return Problem(where, context["what"], context["cure"])
    if kind == "missing":
        return Problem(where, "is missing", f"add `{_example(location)}`")
    if kind == "extra_forbidden":
        known = _known_keys(model, location[:-1])
        return Problem(where, f"unknown key {location[-1]!r}", did_you_mean(location[-1], known))
    if kind == "literal_error":
        options = re.findall(r"'([^']*)'", context["expected"])
        return Problem(where, f"must be one of {', '.join(options)}, got {short(value)}")
    if kind in _BOUNDS:
        name, words = _BOUNDS[kind]
        return Problem(where, f"must be {words} {context[name]}, got {short(value)}")
    if kind == "string_pattern_mismatch":
        allowed = next((t for p, t in _PATTERNS.items() if f"[{p}]" in context["pattern"]), "valid")
        return Problem(where, f"must be {allowed}, got {short(value)}")
    if kind in {"too_short", "string_too_short"}:
        return Problem(where, "must not be empty", "add an entry" if kind == "too_short" else "")
    if kind in _TYPES:
        return Problem(
            where, f"must be {_TYPES[kind]}, got {short(value)}", _type_cure(kind, value)
        )
    return Problem(where, f"is not valid ({error['msg'].lower()}), got {short(value)}")


def _type_cure(kind: str, value: Any) -> str:
    if value is None:
        return "write a value, or remove the line for the default"
    if kind == "string_type" and isinstance(value, (bool, int, float)):
        return "put it in quotes"
    if isinstance(value, str) and re.fullmatch(r"[-+0-9.eE]+|true|false", value):
        return "write it without quotes"
    return "put a dash before each entry" if kind == "tuple_type" else ""


def _example(location: Location) -> str:
    key = str(location[-1])
    return (
        _EXAMPLES.get(key, f"{key}: ...") if len(location) == 1 or key == "model" else f"{key}: ..."
    )


def _known_keys(model: type[BaseModel], location: Location) -> list[str]:
    """List the keys of the section at ``location``."""
    for part in location:
        if isinstance(part, str):
            found = _section(model.model_fields[part].annotation)
            if found is None:
                return []
            model = found
    return list(model.model_fields)


def _section(annotation: Any) -> type[BaseModel] | None:
    """Find the model in ``X``, ``X | None`` or ``tuple[X, ...]``."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(_section, get_args(annotation))), None)
