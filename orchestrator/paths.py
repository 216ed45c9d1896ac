"""Relative paths in a config mean files beside it, wherever the command is started."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

_FILES = (
    ("data", "path"),
    ("data", "dev"),
    ("data", "test"),
    ("data", "transfer"),
    ("student", "embedding", "path"),
)
_CHECKPOINTS = (("student", "model", "checkpoint"), ("student", "tokenizer", "checkpoint"))
_OF_A_TEACHER = (("model", "checkpoint"), ("tokenizer", "checkpoint"), ("exported",))
_WORDS = {"rest"}
_REMOTE = re.compile(r"(pypi:|[a-z][a-z0-9+.-]*://)")


def resolve_paths(
    mapping: Mapping[str, Any], folders: Sequence[Path], *, final: bool = False
) -> dict[str, Any]:
    """Return a copy whose relative paths are absolute, if they exist below one of ``folders``.

    Args:
        mapping: A config as plain data, not yet validated: odd values are left as they are.
        folders: Where to look, first match wins.
        final: Also make files absolute that exist nowhere, below the last folder, so that the
            message about them names the whole path. Checkpoints that exist nowhere and do not
            look like a path stay as they are: they are ids of a model hub.
    """
    result = copy.deepcopy(dict(mapping))
    remote = _is_remote(result)
    for holder, key in _places(result, _FILES):
        if holder is result.get("data") and remote and key == "path":
            continue
        if holder[key] not in _WORDS:
            holder[key] = _resolved(holder[key], folders, final and not remote)
    for holder, key in _checkpoint_places(result):
        looks_like_path = holder[key].startswith((".", "/", "~"))
        holder[key] = _resolved(holder[key], folders, final and looks_like_path)
    return result


def _resolved(text: str, folders: Sequence[Path], always: bool) -> str:
    if not text or _REMOTE.match(text):
        return text
    path = Path(text)
    if text.startswith("~/"):
        path = Path.home() / text[2:]
    if path.is_absolute():
        return str(path)
    for folder in folders:
        if _exists(folder / path):
            return str((folder / path).resolve())
    return str((folders[-1] / path).resolve()) if always else text


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):
        return False  # a name too long for a file, or one that holds a NUL


def _is_remote(mapping: Mapping[str, Any]) -> bool:
    data = mapping.get("data")
    source = data.get("source") if isinstance(data, Mapping) else None
    return isinstance(source, str) and (source == "huggingface" or bool(_REMOTE.match(source)))


def _checkpoint_places(mapping: dict[str, Any]) -> Iterator[tuple[dict[str, Any], str]]:
    yield from _places(mapping, _CHECKPOINTS)
    teachers = mapping.get("teachers")
    for teacher in teachers if isinstance(teachers, list) else ():
        if isinstance(teacher, dict):
            yield from _places(teacher, _OF_A_TEACHER)


def _places(
    mapping: dict[str, Any], paths: Sequence[tuple[str, ...]]
) -> Iterator[tuple[dict[str, Any], str]]:
    """Yield the mapping and key of each path that leads to text."""
    for *parents, key in paths:
        holder: Any = mapping
        for parent in parents:
            holder = holder.get(parent) if isinstance(holder, dict) else None
        if isinstance(holder, dict) and isinstance(holder.get(key), str):
            yield holder, key


def file_places(
    mapping: dict[str, Any],
) -> Iterator[tuple[str, dict[str, Any], str]]:
    """Yield where a config names files or folders: the dotted place, its mapping and its key."""
    remote = _is_remote(mapping)
    for path in _FILES:
        for holder, key in _places(mapping, (path,)):
            if holder[key] not in _WORDS and not (remote and path == ("data", "path")):
                yield ".".join(path), holder, key
    for holder, key in _checkpoint_places(mapping):
        yield key, holder, key
