"""Pack a sweep for the trip to a cluster: its config and the small local files it names.

Ray uploads a folder with a job. A path that does not exist here is one of the cluster, and stays.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

import yaml

from orchestrator.errors import ConfigError, Problem
from orchestrator.paths import file_places
from orchestrator.schema import SweepConfig

CONFIG = "sweep.yaml"
# Ray's dashboard takes at most 100 MiB per request, and the rest of the request needs room too.
MAX_BYTES = 95 * 2**20


def pack(config: SweepConfig, extras: Iterable[Path], folder: Path) -> Path:
    """Write a config and what it names on this machine into ``folder``.

    Args:
        config: The checked config; its paths are absolute where they exist.
        extras: Files and folders to take along, such as a package of one's own components.
        folder: An empty folder.

    Returns:
        The config inside the folder; the paths in it are relative to it.

    Raises:
        ConfigError: The files are too big to travel, or an extra one does not exist.
    """
    mapping = config.to_dict()
    moved, problems = [], []
    for number, (where, holder, key) in enumerate(file_places(mapping)):
        path = Path(holder[key])
        if path.is_absolute() and path.exists():
            moved.append((where, path, folder / "files" / f"{number}-{path.name}"))
            holder[key] = str(moved[-1][2].relative_to(folder))
    for path in extras:
        if path.exists():
            moved.append(("--with", path, folder / path.absolute().name))
        else:
            problems.append(Problem("--with", f"{path} does not exist"))
    problems += _too_big(moved)
    if problems:
        raise ConfigError(problems)
    for _, path, target in moved:
        target.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            shutil.copytree(path, target, ignore=shutil.ignore_patterns("__pycache__", ".git"))
        else:
            shutil.copyfile(path, target)
    target = folder / CONFIG
    target.write_text(yaml.safe_dump(mapping, allow_unicode=True), encoding="utf-8")
    return target


def _too_big(moved: Iterable[tuple[str, Path, Path]]) -> list[Problem]:
    sizes = [(size_of(path), where, path) for where, path, _ in moved]
    if sum(size for size, _, _ in sizes) <= MAX_BYTES:
        return []
    size, where, path = max(sizes)
    total = sum(size for size, _, _ in sizes)
    text = (
        f"{path} has {size / 2**20:.0f} of {total / 2**20:.0f} MB of files to send, but at most "
        f"{MAX_BYTES / 2**20:.0f} MB travel with a job"
    )
    cure = "copy it to the store that the nodes share and name its path there"
    return [Problem(where, text, cure)]


def size_of(path: Path) -> int:
    """Return the bytes of a file or of all files below a folder."""
    if path.is_file():
        return path.stat().st_size
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
