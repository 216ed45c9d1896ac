"""Writes a preset out as a config of the user's own, comments and data file included."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from orchestrator.errors import UsageError
from search_spaces.errors import ConfigFileError
from search_spaces.loader import load_yaml, preset_path

_NAME = re.compile(r"^name:.*$", re.MULTILINE)
_PARTS = ("path", "dev", "test", "transfer")


def render_preset(preset: str, sweep: str | None = None) -> str:
    """Return the text of a preset, with the sweep's name replaced if one is given.

    Raises:
        UsageError: There is no such preset, or the name cannot name a sweep.
    """
    try:
        text = preset_path(preset).read_text(encoding="utf-8")
    except ConfigFileError as error:
        raise UsageError(str(error)) from error
    if sweep is None:
        return text
    if not re.fullmatch(r"[a-z0-9_-]{1,64}", sweep):
        raise UsageError(f"the name {sweep!r} must be 1 to 64 of the characters a-z 0-9 _ -")
    return _NAME.sub(f"name: {sweep}", text, count=1)


def copy_preset(preset: str, target: Path, sweep: str | None = None) -> list[Path]:
    """Write a preset to ``target``, and the data files it ships with beside it.

    Returns:
        What was written, the config last.

    Raises:
        UsageError: No such preset, something is in the way, or the folder cannot be written.
    """
    text = render_preset(preset, sweep)
    files = [(target.parent / path.name, path.read_bytes()) for path in _data_files(preset)]
    files.append((target, text.encode("utf-8")))
    for path, _ in files:
        if path.exists():
            raise UsageError(f"{path} exists; remove it or choose another name with --output")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        for path, content in files:
            with path.open("xb") as stream:
                stream.write(content)
    except OSError as error:
        raise UsageError(f"cannot write {target}: {error.strerror}") from error
    return [path for path, _ in files]


def _data_files(preset: str) -> Iterator[Path]:
    """List the files next to the preset that its data section names."""
    data = load_yaml(preset_path(preset)).get("data", {})
    for part in _PARTS:
        value = data.get(part)
        if isinstance(value, str) and (path := preset_path(preset).parent / value).is_file():
            yield path
