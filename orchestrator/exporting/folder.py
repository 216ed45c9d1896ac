"""The folder of an exported student: names of its files, and where a sweep's was written."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from orchestrator.home import Home
from trainables.store import atomic_write

CONFIG = "config.json"
TOKENIZER = "tokenizer.json"
CARD = "README.md"
SCRIPT = "predict.py"
FACTS = "export.json"
GRAPHS = {"int8": "model.int8.onnx", "fp32": "model.onnx"}

_MEMORY = "exported.json"


def holds_student(folder: Path) -> bool:
    """Tell whether a folder was written by ``orchestrator export``."""
    return (folder / FACTS).is_file() and (folder / CONFIG).is_file()


def damaged_files(folder: Path, needed: Sequence[str]) -> list[str]:
    """Return which of the needed files have not the size they were written with."""
    sizes = json.loads((folder / FACTS).read_bytes())["bytes"]
    return [name for name in needed if _size(folder / name) != sizes[name]]


def remember(home: Home, name: str, folder: Path) -> None:
    """Write down where a sweep's student is, so that ``predict`` can find it by the name."""
    text = json.dumps({"folder": str(folder)})
    atomic_write(home.sweep(name) / _MEMORY, text.encode("utf-8"))


def recall(home: Home, name: str) -> Path | None:
    """Return where a sweep's student was last exported to."""
    try:
        return Path(json.loads((home.sweep(name) / _MEMORY).read_bytes())["folder"])
    except FileNotFoundError:
        return None


def _size(file: Path) -> int | None:
    return file.stat().st_size if file.is_file() else None
