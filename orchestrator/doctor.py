"""The doctor: looks at the machine before a sweep does."""

from __future__ import annotations

import os
import platform
import shutil
import sqlite3
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from typing import Any

from orchestrator.errors import PreflightError
from orchestrator.home import Home
from orchestrator.preflight import check_home

PACKAGES = ("torch", "transformers", "ray", "optuna", "mlflow", "pandas", "tokenizers")


@dataclass(frozen=True)
class Check:
    """One thing that was looked at."""

    name: str
    good: bool
    found: str

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return asdict(self)


def examine(home: Home) -> list[Check]:
    """Look at versions, the processor, GPUs, memory, disk, the home and its databases."""
    return [
        Check("python", True, platform.python_version()),
        *_packages(),
        *_hardware(),
        *_home(home),
        *_databases(home),
    ]


def _packages() -> Iterator[Check]:
    for package in PACKAGES:
        try:
            yield Check(package, True, metadata.version(package))
        except metadata.PackageNotFoundError:
            yield Check(package, False, "not installed; pip install the project again")


def _hardware() -> Iterator[Check]:
    import torch

    from trainables.device import pick_device, resolve_precision

    cores = os.cpu_count() or 1
    yield Check("CPU", True, f"{cores} cores, {platform.processor() or platform.machine()}")
    device = pick_device()
    found = "none; everything runs on the CPU"
    if device.type == "cuda":
        names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        found = ", ".join(names)
    yield Check("GPU", True, found)
    yield Check("precision", True, f"auto means {resolve_precision('auto', device)} here")


def _home(home: Home) -> Iterator[Check]:
    try:
        check_home(home)
    except PreflightError as error:
        yield Check("home", False, str(error))
        return
    free = shutil.disk_usage(home.path).free
    yield Check(
        "home", True, f"{home.path}, {free / 1e9:.0f} GB free, sweeps: {len(home.sweeps())}"
    )


def _databases(home: Home) -> Iterator[Check]:
    for name in ("ledger.db", "mlflow.db"):
        path = home.path / name
        if not path.exists():
            yield Check(name, True, "not there yet; the first sweep makes it")
            continue
        try:
            with sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=5) as connection:
                verdict = str(connection.execute("PRAGMA quick_check").fetchone()[0])
        except sqlite3.Error as error:
            yield Check(name, False, f"unreadable ({error}); move {path} away")
            continue
        yield Check(name, verdict == "ok", f"{path.stat().st_size / 1e6:.1f} MB, {verdict}")
