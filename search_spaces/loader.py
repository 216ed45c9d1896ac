"""Loads config files and presets, and applies ``--set`` overrides; all of it is plain data."""

from __future__ import annotations

import copy
import difflib
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from search_spaces.errors import ConfigFileError, OverrideError
from search_spaces.parsing import COMPONENT_KEYS
from search_spaces.yaml import YamlError, parse_yaml

MAX_BYTES = 1_000_000


def preset_names() -> list[str]:
    """List the presets shipped with the project."""
    return sorted(path.stem for path in _presets().glob("*.yaml"))


def preset_path(name: str) -> Path:
    """Return the file of a preset.

    Raises:
        ConfigFileError: There is no such preset.
    """
    if name not in preset_names():
        raise ConfigFileError(f"there is no preset {name!r}{_suggest(name)}")
    return _presets() / f"{name}.yaml"


def locate(source: str | Path) -> Path:
    """Return the file that ``source`` means: a path, or else the name of a preset.

    Raises:
        ConfigFileError: It is neither.
    """
    path = Path(source)
    if path.is_file():
        return path
    if str(source) in preset_names():
        return preset_path(str(source))
    if path.is_dir():
        raise ConfigFileError(f"{path} is a folder; give the YAML file in it")
    if path.suffix in {".yaml", ".yml"} or len(path.parts) > 1:
        near = sorted(other.name for other in path.parent.glob("*.y*ml"))
        close = difflib.get_close_matches(path.name, near, n=1)
        hint = f"did you mean {str(path.parent / close[0])!r}?" if close else "check the path"
        raise ConfigFileError(f"there is no file {path}; {hint}")
    raise ConfigFileError(f"there is no file or preset {str(source)!r}{_suggest(str(source))}")


def load_yaml(source: str | Path) -> dict[str, Any]:
    """Return the mapping in a YAML file or preset.

    Raises:
        ConfigFileError: It cannot be found or read, is over 1 MB, or is not a YAML mapping.
    """
    path = locate(source)
    try:
        with path.open("rb") as stream:
            content = stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise ConfigFileError(f"cannot read {path}: {error.strerror}") from error
    if len(content) > MAX_BYTES:
        raise ConfigFileError(f"{path} is over 1 MB; a config is a few kB, is this the data?")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigFileError(
            f"{path} is not UTF-8 (byte {error.start}); save it with the encoding UTF-8"
        ) from error
    try:
        document = parse_yaml(text)
    except YamlError as error:
        raise ConfigFileError(f"{path}: {error}") from error
    if document is None:
        raise ConfigFileError(f"{path} is empty; `orchestrator init` writes one to start from")
    if not isinstance(document, dict):
        kind = "a list" if isinstance(document, list) else "a single value"
        raise ConfigFileError(f"{path} holds {kind}; a config is a mapping, `name: ...` and so on")
    return document


def apply_overrides(mapping: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Return a copy of ``mapping`` with each ``a.b.0.c=value`` set; values are YAML.

    A segment that is a number indexes a list. Missing mappings are made; whether a key may exist
    is for the config to say.

    Raises:
        OverrideError: No ``=``, a value that is not YAML, an index out of range, or a path
            through a plain value.
    """
    result = copy.deepcopy(dict(mapping))
    for override in overrides:
        path, equals, text = override.partition("=")
        path = path.strip()
        if not equals or not path or not all(path.split(".")):
            raise OverrideError(
                f"--set {override!r} is not of the form key=value; write e.g. search.trials=8"
            )
        try:
            value = parse_yaml(text)
        except YamlError as error:
            raise OverrideError(f"--set {override!r}: {error}") from error
        _set(result, path, value)
    return result


def _set(target: Any, path: str, value: Any) -> None:
    segments = path.split(".")
    for position, segment in enumerate(segments):
        rest = ".".join(segments[position:])
        last = position == len(segments) - 1
        if isinstance(target, list):
            key: Any = _index(target, segment, path, ".".join(segments[:position]))
        elif isinstance(target, dict):
            # A search space may hold `model.filters` as one key.
            key, last = (rest, True) if rest in target else (segment, last)
        else:
            parent = ".".join(segments[:position])
            raise OverrideError(
                f"--set {path}: {parent} is {target!r} and has no {segment!r}; "
                f"override {parent} as a whole"
            )
        if last:
            target[key] = value
            return
        if isinstance(target, dict):
            _make_mapping(target, key)
        target = target[key]


def _make_mapping(target: dict[str, Any], key: str) -> None:
    """Prepare ``target[key]`` to be entered: what is absent or short becomes a mapping."""
    current = target.get(key)
    if current is None:
        target[key] = {}
    elif key in COMPONENT_KEYS and isinstance(current, str):
        target[key] = {"name": current}


def _index(target: list[Any], segment: str, path: str, parent: str) -> int:
    if segment.isascii() and segment.isdigit() and int(segment) < len(target):
        return int(segment)
    last = f"0 to {len(target) - 1}" if target else "none, it is empty"
    raise OverrideError(f"--set {path}: {parent} is a list without {segment!r}; indices: {last}")


def _presets() -> Path:
    return Path(str(resources.files("search_spaces"))) / "presets"


def _suggest(name: str) -> str:
    known = preset_names()
    close = difflib.get_close_matches(name, known, n=1)
    meant = f", did you mean {close[0]!r}?" if close else ""
    return f"{meant}; presets: {', '.join(known)}"
