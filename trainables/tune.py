"""The adapter to Ray Tune: one actor class that runs any task and can be used again.

The only module of this package that imports Ray. A class trainable with ``reset_config`` lets
one process run trial after trial, so that torch is imported once and the token tensors and
teacher outputs of the last trial are still there for the next.
"""

from __future__ import annotations

import os
import socket
import traceback
from collections.abc import Generator
from typing import Any

import torch
from ray import tune

from trainables.errors import ArtifactMissing, StoreError, TrialFailed
from trainables.store import Store
from trainables.tasks import run_task


class Trial(tune.Trainable):  # type: ignore[misc]
    """One trial. Its config has ``task``, ``spec`` and ``store``; all are plain JSON values."""

    _reports: Generator[dict[str, Any], None, None]
    _epoch: int
    _worker: dict[str, Any]

    def setup(self, config: dict[str, Any]) -> None:
        """Start a trial in a fresh process."""
        self._start(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Start the next trial in this process."""
        self._reports.close()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()  # the GPU is shared with other trials
        self._start(new_config)
        return True

    def step(self) -> dict[str, Any]:
        """Train one epoch and return what it measured.

        An error that would come again is returned as a result with ``status`` ``failed``; one
        that may pass, such as a lost disk or node, escapes, and Tune tries the trial again.
        """
        try:
            report = next(self._reports)
        except (OSError, ConnectionError):
            raise
        except Exception as error:  # the border where any outcome becomes data
            report = _failure(error, self._epoch)
        self._epoch = report["epoch"]
        report.setdefault("finished", False)
        report["worker"] = self._worker
        report["done"] = report["finished"] or report.get("status") == "failed"
        return report

    def cleanup(self) -> None:
        """Close a trial that is stopped before its end, so that its files are closed."""
        self._reports.close()

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Do nothing: trials keep their own checkpoints, named by content."""

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Do nothing: a trial finds its own checkpoint."""

    def _start(self, config: dict[str, Any]) -> None:
        torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
        self._epoch = 0
        store = Store(config["store"])
        self._reports = run_task(config["task"], config["spec"], store)
        self._worker = {
            "node": socket.gethostname(),
            "pid": os.getpid(),
            "gpus": os.environ.get("CUDA_VISIBLE_DEVICES", ""),
            "device": "cuda" if torch.cuda.is_available() else "cpu",
        }


def _failure(error: Exception, epoch: int) -> dict[str, Any]:
    """Describe an error: its reason for grouping, one line for people, the traceback."""
    reason = type(error).__name__
    text = f"{reason}: {error}"
    if isinstance(error, torch.OutOfMemoryError):
        reason = "oom"
    elif isinstance(error, StoreError | ArtifactMissing):
        # No trial can go on without what is missing or damaged; the next start makes it again.
        reason, text = "store", str(error)  # ends the sweep, whose last words it is
    return {
        "epoch": epoch,
        "status": "failed",
        "reason": reason,
        "expected": isinstance(error, TrialFailed),
        "error": text,
        "traceback": traceback.format_exc(),
    }
