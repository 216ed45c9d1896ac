"""The components: one file each, found by listing directories.

A kind is a folder of this package, a component is a file in it, and the file ends with
``COMPONENT = TheClass``. There is no registry to fill: Ray workers start empty, and a directory
listing is the same on every node. ``"pkg.module:Name"`` names a user's own class.
"""

from __future__ import annotations

import ast
import difflib
import importlib
import inspect
import re
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from trainables.errors import ComponentError

KINDS = ("losses", "weightings", "hints", "schedules", "models", "data")

_PACKAGE = Path(__file__).parent
# Up to the next empty line: the continuation lines of a source are indented.
_SOURCE = re.compile(r"^Source:\s*(.*?)(?:\n\s*\n|\Z)", re.MULTILINE | re.DOTALL)


class Parameter(NamedTuple):
    """A parameter a component accepts; ``default`` is ``...`` when it must be given."""

    name: str
    default: Any
    annotation: str


@cache
def names(kind: str) -> list[str]:
    """List the components of ``kind`` by name, sorted; imports nothing.

    Raises:
        ComponentError: ``kind`` is not one of ``KINDS``.
    """
    if kind not in KINDS:
        raise ComponentError(f"unknown kind of component {kind!r}{_suggest(kind, KINDS)}")
    folder = _PACKAGE / kind
    return sorted(path.stem for path in folder.glob("*.py") if not path.stem.startswith("_"))


def load(kind: str, name: str) -> type[Any]:
    """Return the class behind ``name``, importing its module.

    Args:
        kind: One of ``KINDS``.
        name: A file name of that folder, or ``"pkg.module:Name"`` for a class elsewhere.

    Raises:
        ComponentError: The name is unknown or its module cannot be imported.
    """
    known = names(kind)
    if ":" in name:
        return _load_foreign(name)
    if name not in known:
        raise ComponentError(
            f"unknown {_singular(kind)} {name!r}{_suggest(name, known)}; "
            f"known: {', '.join(known)}, or 'package.module:Class' for your own"
        )
    component: type[Any] = importlib.import_module(f"trainables.{kind}.{name}").COMPONENT
    return component


def build(kind: str, name: str, **params: Any) -> Any:
    """Make the component ``name`` with ``params``.

    Raises:
        ComponentError: Unknown name, a parameter it does not accept, or a value it refuses.
    """
    component = load(kind, name)
    _check_parameters(kind, name, component, params)
    try:
        return component(**params)
    except (ValueError, TypeError) as error:
        raise ComponentError(f"{_singular(kind)} {name!r}: {error}") from error


def parameters(kind: str, name: str) -> list[Parameter]:
    """List what the component accepts, in the order of its ``__init__``."""
    return _signature(load(kind, name))


def summary(kind: str, name: str) -> str:
    """Return the first line of the component's docstring without importing its module."""
    return _document(kind, name).partition("\n")[0]


def source(kind: str, name: str) -> str:
    """Return where the component comes from, on one line, or "" where it does not say.

    It is the paragraph ``Source:`` of its docstring; nothing is imported.
    """
    return source_of(_document(kind, name))


def source_of(document: str) -> str:
    """Return the paragraph ``Source:`` of a docstring on one line, or ""."""
    found = _SOURCE.search(document)
    return " ".join(found[1].split()).removesuffix(".") if found else ""


def _document(kind: str, name: str) -> str:
    """Return the docstring of the component's class, else of its module."""
    tree = ast.parse((_PACKAGE / kind / f"{name}.py").read_text(encoding="utf-8"))
    component = _component_name(tree)
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and node.name == component:
            return ast.get_docstring(node) or ""
    return ast.get_docstring(tree) or ""


def _component_name(tree: ast.Module) -> str | None:
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Name):
            targets = [target.id for target in node.targets if isinstance(target, ast.Name)]
            if "COMPONENT" in targets:
                return node.value.id
    return None


def _load_foreign(name: str) -> type[Any]:
    module_name, _, attribute = name.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise ComponentError(
            f"cannot import {module_name!r} for component {name!r}: {error}; "
            "install it where every node can import it, or put its folder on PYTHONPATH"
        ) from error
    try:
        component: type[Any] = getattr(module, attribute)
    except AttributeError as error:
        candidates = [key for key in vars(module) if not key.startswith("_")]
        raise ComponentError(
            f"module {module_name!r} has no {attribute!r}{_suggest(attribute, candidates)}"
        ) from error
    return component


def _check_parameters(kind: str, name: str, component: type[Any], params: dict[str, Any]) -> None:
    accepted = _signature(component)
    if any(parameter.name.startswith("**") for parameter in accepted):
        return
    known = [parameter.name for parameter in accepted]
    listed = ", ".join(known) or "no parameters"
    for given in params:
        if given not in known:
            raise ComponentError(
                f"{_singular(kind)} {name!r} has no parameter {given!r}"
                f"{_suggest(given, known)}; it accepts: {listed}"
            )
    for parameter in accepted:
        if parameter.default is ... and parameter.name not in params:
            raise ComponentError(
                f"{_singular(kind)} {name!r} needs the parameter {parameter.name!r}; "
                f"it accepts: {listed}"
            )


def _signature(component: type[Any]) -> list[Parameter]:
    result = []
    for parameter in inspect.signature(component).parameters.values():
        if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
            continue
        stars = "**" if parameter.kind is inspect.Parameter.VAR_KEYWORD else ""
        empty = parameter.default is inspect.Parameter.empty
        default = ... if empty and not stars else parameter.default
        annotation = "" if parameter.annotation is parameter.empty else str(parameter.annotation)
        result.append(Parameter(stars + parameter.name, default, annotation))
    return result


def _suggest(given: str, known: Any) -> str:
    close = difflib.get_close_matches(given, list(known), n=1)
    return f", did you mean {close[0]!r}?" if close else ""


def _singular(kind: str) -> str:
    return {"losses": "loss", "data": "data source"}.get(kind, kind.removesuffix("s"))
