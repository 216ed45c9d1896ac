"""How long models take for one batch, measured side by side on this machine."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

Run = Callable[[], object]

WARM_UP = 3
LEAST_ROUNDS = 20
MOST_ROUNDS = 300


@dataclass(frozen=True)
class Timing:
    """Milliseconds for one batch: median and 95th percentile of ``n`` batches."""

    p50_ms: float
    p95_ms: float
    n: int


def measure(runs: Mapping[str, Sequence[Run]], seconds: float) -> dict[str, Timing]:
    """Time models in turns, so that whatever else the machine does slows down all of them.

    Args:
        runs: For each model, one call for each batch; all models have the same batches.
        seconds: About how long to measure; the least number of rounds is run anyway.
    """
    for calls in runs.values():
        for call in calls[:WARM_UP]:
            call()
    taken: dict[str, list[float]] = {name: [] for name in runs}
    began = time.perf_counter()
    for turn in range(MOST_ROUNDS):
        if turn >= LEAST_ROUNDS and time.perf_counter() - began > seconds:
            break
        for name, calls in runs.items():
            call = calls[turn % len(calls)]
            started = time.perf_counter()
            call()
            taken[name].append(1e3 * (time.perf_counter() - started))
    return {name: _timing(times) for name, times in taken.items()}


def machine() -> dict[str, Any]:
    """Name the processor, how many cores may be used, and the system."""
    name = platform.processor() or platform.machine()
    described = Path("/proc/cpuinfo")
    if described.is_file():
        lines = described.read_text(encoding="utf-8", errors="replace").splitlines()
        models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
        name = models[0] if models else name
    return {
        "cpu": name,
        "cores": cores(),
        "system": f"{platform.system()} {platform.machine()}",
    }


def cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _timing(times: Sequence[float]) -> Timing:
    p50, p95 = np.percentile(times, [50, 95])
    return Timing(round(float(p50), 4), round(float(p95), 4), len(times))
