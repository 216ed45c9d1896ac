"""YAML for configs: the safe subset, without the surprises of YAML 1.1, and bounded.

Differences from ``yaml.safe_load``: ``5e-5`` is a number; ``no``, ``on`` and ``2024-01-31`` are
text; a key is always the text that was written, so that class ``1`` and column ``null`` survive;
a key given twice is an error; and a document that explodes when its aliases are expanded is
refused.
"""

from __future__ import annotations

import re
from collections.abc import Hashable
from typing import Any

import yaml

_MOST_VALUES = 100_000
_DEEPEST = 40
_SYNTAX_CURE = "check the indentation, colons and brackets there"


class YamlError(ValueError):
    """A text is not YAML that a config may hold; says where in the text."""


class _Loader(yaml.SafeLoader):
    """A safe loader with scalar rules of its own."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """Build a mapping whose keys are text, refusing a key given twice."""
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.MarkedYAMLError(
                    problem="a key must be text", problem_mark=key.start_mark
                )
            if key.tag == "tag:yaml.org,2002:merge":
                continue
            if key.value in seen:
                raise _mistake(key, f"the key {key.value!r} is given twice", "keep one of them")
            seen.add(key.value)
            key.tag = "tag:yaml.org,2002:str"
        return super().construct_mapping(node, deep=deep)


def _mistake(node: yaml.Node, problem: str, cure: str) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark, note=cure)


_SCALARS = {
    "null": (r"~|null|", ["~", "n", ""]),
    "bool": (r"true|false|True|False", list("tfTF")),
    "int": (r"[-+]?(?:0|[1-9][0-9_]*)", list("-+0123456789")),
    "float": (
        r"[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?|[-+]?[0-9]+[eE][-+]?[0-9]+",
        list("-+.0123456789"),
    ),
    "merge": (r"<<", ["<"]),
}
for _tag, (_pattern, _first) in _SCALARS.items():
    _Loader.add_implicit_resolver(
        f"tag:yaml.org,2002:{_tag}", re.compile(rf"(?:{_pattern})\Z"), _first
    )


def parse_yaml(text: str) -> Any:
    """Return the one document in ``text`` as plain data, None if there is none.

    Raises:
        YamlError: It is not YAML, holds Python tags, or is too large once expanded.
    """
    try:
        document = yaml.load(text, Loader=_Loader)
        _check_size(document)
    except yaml.YAMLError as error:
        raise YamlError(_describe(error, text)) from error
    except RecursionError as error:
        raise YamlError("is nested too deeply; a config needs a few levels only") from error
    except (ValueError, TypeError) as error:
        # PyYAML lets these pass for explicit tags such as `!!int x`.
        raise YamlError(f"holds a value that cannot be read ({error})") from error
    return document


def _check_size(document: Any) -> None:
    """Refuse a document whose aliases expand without end."""
    stack = [(document, 0)]
    count = 0
    while stack:
        value, depth = stack.pop()
        count += 1
        if depth > _DEEPEST or count > _MOST_VALUES:
            raise yaml.YAMLError(
                f"is too large: over {_MOST_VALUES} values or {_DEEPEST} levels with aliases "
                "expanded"
            )
        if isinstance(value, dict):
            stack.extend((inner, depth + 1) for inner in value.values())
        elif isinstance(value, (list, set, tuple)):
            stack.extend((inner, depth + 1) for inner in value)


def _describe(error: yaml.YAMLError, text: str) -> str:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    if mark is None:
        position = getattr(error, "position", None)
        if position is None:
            return str(error)
        line = text.count("\n", 0, position) + 1
        return f"line {line}: holds a control character; save it as plain text"
    place = f"line {mark.line + 1}, column {mark.column + 1}"
    line_text = text.split("\n")[mark.line] if mark.line < text.count("\n") + 1 else ""
    if "\t" in line_text[: mark.column + 1]:
        return f"{place}: a tab where YAML wants spaces; indent with spaces"
    problem = str(getattr(error, "problem", None) or "is not valid YAML")
    if isinstance(error, yaml.constructor.ConstructorError) and "tag" in problem:
        return f"{place}: tags such as !!python are not allowed; write a plain value"
    return f"{place}: {problem}; {getattr(error, 'note', None) or _SYNTAX_CURE}"
