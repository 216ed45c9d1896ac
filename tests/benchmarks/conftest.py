"""Collects what the benchmarks measured into one JSON document, printed at the end of the run.

Figures are ratios within one run, or come with the figure they must be compared with: times of
different machines, or of different moments of a busy one, say nothing.
"""

import json
import os
import platform
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

FIGURES = pytest.StashKey[dict[str, dict[str, Any]]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--bench-json", metavar="FILE", help="write the measured figures to FILE too")


@pytest.fixture
def record_figures(request: pytest.FixtureRequest) -> Callable[..., None]:
    """``record_figures("name", ratio=..., target=...)``: JSON values, floats are rounded."""
    figures = request.config.stash.setdefault(FIGURES, {})

    def record(name: str, **values: Any) -> None:
        figures[name] = {
            key: float(f"{value:.4g}") if isinstance(value, float) else value
            for key, value in values.items()
        }

    return record


@pytest.fixture
def one_thread() -> Iterator[None]:
    """As many threads as a student trial has on one CPU."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    figures = config.stash.get(FIGURES, {})
    if not figures:
        return
    machine = {
        "cpus": os.cpu_count(),
        "machine": platform.machine(),
        "load": round(os.getloadavg()[0], 1),
        "torch": torch.__version__,
    }
    document = json.dumps({"machine": machine, "figures": figures}, indent=2)
    terminalreporter.write_sep("=", "figures")
    terminalreporter.write_line(document)
    path = config.getoption("bench_json", None)
    if path:
        Path(path).write_text(document + "\n", encoding="utf-8")
