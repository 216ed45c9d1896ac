"""What every trained model leaves behind: reports, metrics and a stored artifact.

Legend: N dev rows, C classes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from safetensors.torch import save_file
from torch import Tensor, nn

from trainables.checkpoint import Checkpoint
from trainables.loop import Fit
from trainables.models._io import save_model
from trainables.models._latency import latency_ms
from trainables.models._size import model_bytes, parameter_counts
from trainables.store import Store

Predictions = tuple[Tensor, Tensor, Tensor]


@dataclass(frozen=True)
class Remarks:
    """What is known of a training once it is over.

    Attributes:
        metrics: Numbers that join the summary.
        meta: JSON values that join the manifest.
    """

    metrics: Mapping[str, float]
    meta: Mapping[str, Any]


def report_and_store(
    fit: Fit,
    store: Store,
    *,
    kind: str,
    key: str,
    predict: Callable[[], Predictions],
    meta: Mapping[str, Any],
    checkpoint: Checkpoint | None,
    remark: Callable[[], Remarks | None] | None = None,
) -> Iterator[dict[str, Any]]:
    """Run a fit and yield its epochs as plain dicts; before the last one, store the model.

    Args:
        fit: The training to run.
        store: Where the artifact goes.
        kind: Kind of the artifact.
        key: Key of the artifact.
        predict: Returns ids ``[N]``, logits ``[N, C]`` and targets ``[N]`` of the dev split.
        meta: Further facts for the manifest.
        checkpoint: Cleared once the artifact exists.
        remark: Asked once, when the model holds the weights that are kept.

    Yields:
        ``epoch``, ``finished`` and the epoch's metrics; the last also ``summary``; the first of
        a training that continues also ``history``, the epochs before it.
    """
    started = time.perf_counter()
    told = 0
    for report in fit:
        result: dict[str, Any] = {"epoch": report.epoch, "finished": report.last, **report.metrics}
        if report.epoch > told + 1:
            # The process that trained them may have died with its driver, before they were heard.
            result["history"] = fit.history[told : report.epoch - 1]
        told = report.epoch
        if report.last:
            remarks = remark() if remark is not None else None
            summary = summarise(fit, fit.model, time.perf_counter() - started)
            summary |= remarks.metrics if remarks is not None else {}
            ids, logits, targets = predict()
            with store.write(kind, key) as draft:
                save_model(fit.model, draft.path / "model")
                predictions = {"ids": ids, "logits": logits, "targets": targets}
                save_file(predictions, draft.path / "dev.safetensors")
                draft.meta.update(meta, metrics=summary, history=fit.history)
                draft.meta.update(remarks.meta if remarks is not None else {})
            if checkpoint is not None:
                checkpoint.clear()
            yield {**result, "summary": summary}
        else:
            yield result


def summarise(fit: Fit, model: nn.Module, seconds: float) -> dict[str, float]:
    """Return the once-per-run metrics of a trained model: the kept epoch, sizes and times."""
    kept = next(entry for entry in fit.history if entry["epoch"] == fit.best_epoch)
    parameters, trainable = parameter_counts(model)
    return {
        **{name: value for name, value in kept.items() if name != "epoch"},
        "best_epoch": float(fit.best_epoch),
        "parameters": float(parameters),
        "parameters_trainable": float(trainable),
        "model_bytes": float(model_bytes(model)),
        "latency_ms": latency_ms(model),
        "train_seconds": sum(entry["train_seconds"] for entry in fit.history),
        "epoch_seconds": sum(entry["epoch_seconds"] for entry in fit.history) / len(fit.history),
        "wall_seconds": seconds,
    }
