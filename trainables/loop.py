"""The training loop shared by teachers and students.

Legend: N examples, B batch.
"""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from trainables.checkpoint import Checkpoint
from trainables.errors import NonFiniteLoss
from trainables.microbatch import Backward, BatchLoss, BatchValue, Forward
from trainables.optimizer import OptimizerSpec, Updates
from trainables.seeding import random_state, set_random_state

__all__ = ["SELECTION_METRIC", "EpochReport", "ExtraState", "Fit", "OptimizerSpec"]

SELECTION_METRIC = "val_f1_macro"


@dataclass(frozen=True)
class EpochReport:
    """What one epoch measured.

    Attributes:
        epoch: 1 for the first.
        metrics: ``train_loss``, its parts, dev metrics and times.
        last: Whether training is over; the model then holds the weights of the best epoch.
    """

    epoch: int
    metrics: dict[str, float]
    last: bool


@dataclass
class _State:
    """What changes from epoch to epoch and must survive a dead process."""

    epoch: int = 0
    best_epoch: int = 0
    best_score: float = float("-inf")
    best_weights: dict[str, Tensor] = field(default_factory=dict)
    history: list[dict[str, float]] = field(default_factory=list)


class Fit:
    """Train a model for some epochs, keep the best by dev macro-F1, continue after a crash.

    Iterating yields one ``EpochReport`` per epoch; ``history`` holds them all, also those of
    epochs trained before this process was started.

    Args:
        model: Trained in place.
        extra: Trainable modules beside the model, such as the projection of a hint.
        extra_optimizer: How the weights of ``extra`` are updated, with gradients clipped apart
            from the model's; None puts both into one optimizer.
        epochs: How many passes.
        steps_per_epoch: Optimizer steps in each of them; sets the learning rate schedule.
        batches: Called with the 0-based epoch, returns the row indices ``[B]`` of each batch.
        forward: Called with such indices, runs the model on these rows.
        loss: Called with such indices and the model's output, returns the scalar to minimise and
            its named parts.
        evaluate: Returns the dev metrics of the model as it is.
        optimizer: How weights are updated.
        generator: Orders the batches; its state is part of the checkpoint.
        checkpoint: Where the state is kept between epochs, or None.
        after_step: Called with the batch's indices after each optimizer step, or None.
        extra_state: Gives and takes the state of other stateful parts, or None.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        epochs: int,
        steps_per_epoch: int,
        batches: Callable[[int], Iterable[Tensor]],
        forward: Forward,
        loss: BatchLoss,
        evaluate: Callable[[], dict[str, float]],
        optimizer: OptimizerSpec,
        generator: torch.Generator,
        extra: nn.Module | None = None,
        extra_optimizer: OptimizerSpec | None = None,
        checkpoint: Checkpoint | None = None,
        after_step: Callable[[Tensor], None] | None = None,
        extra_state: ExtraState | None = None,
    ) -> None:
        self.model = model
        self.extra = extra
        self.epochs = epochs
        self.batches = batches
        self.backward = Backward(forward, loss)
        self.evaluate = evaluate
        self.generator = generator
        self.checkpoint = checkpoint
        self.after_step = after_step
        self.extra_state = extra_state
        total = max(1, epochs * steps_per_epoch)
        self.parameters, others = _trainable(model), _trainable(extra)
        self._updates: list[Updates] = []
        if extra_optimizer is None:
            self.parameters = self.parameters + others
        else:
            self._updates.append(Updates(others, extra_optimizer, total))
        self._updates.append(Updates(self.parameters, optimizer, total))
        self._state = _State()

    @property
    def history(self) -> list[dict[str, float]]:
        """The metrics of all epochs so far, with ``epoch``."""
        return self._state.history

    @property
    def steps(self) -> int:
        """Optimizer steps made so far, also before this process was started."""
        return self._updates[-1].steps

    @property
    def best_epoch(self) -> int:
        """The epoch whose weights are kept, 1 for the first."""
        return self._state.best_epoch

    def __iter__(self) -> Iterator[EpochReport]:
        """Train; yields after each epoch.

        Raises:
            NonFiniteLoss: The loss became NaN or infinite; names the epoch and the parts.
        """
        self._restore()
        while self._state.epoch < self.epochs:
            metrics = self._epoch(self._state.epoch)
            state = self._state
            state.epoch += 1
            state.history.append({"epoch": state.epoch, **metrics})
            if metrics[SELECTION_METRIC] > state.best_score:
                state.best_score, state.best_epoch = metrics[SELECTION_METRIC], state.epoch
                state.best_weights = self._trained_weights()
            last = state.epoch == self.epochs
            if last:
                self.model.load_state_dict(state.best_weights, strict=False)
            else:
                self._save()
            yield EpochReport(state.epoch, metrics, last)

    def _epoch(self, epoch: int) -> dict[str, float]:
        started = time.perf_counter()
        self.model.train()
        # Sums stay on the device: reading a value in every step would stall a GPU.
        sums: dict[str, list[Tensor]] = defaultdict(list)
        rows = 0
        for index in self.batches(epoch):
            total, parts = self._step(index)
            rows += len(index)
            for name, value in {"loss": total, **parts}.items():
                sums[name].append(value)
        means = {f"train_{name}": float(torch.stack(sums[name]).mean()) for name in sums}
        _require_finite(means, epoch, "training")
        train_seconds = time.perf_counter() - started
        self.model.eval()
        validation = self.evaluate()
        # Only the last step of an epoch can break the weights without breaking a training loss.
        _require_finite(validation, epoch, "dev")
        pieces = self.backward.pieces
        return {
            **means,
            **validation,
            **({"micro_batches": float(pieces)} if pieces > 1 else {}),
            "train_seconds": train_seconds,
            "epoch_seconds": time.perf_counter() - started,
            "samples_per_second": rows / max(train_seconds, 1e-9),
        }

    def _step(self, index: Tensor) -> BatchValue:
        value = self.backward(index, self._clear)
        for updates in self._updates:
            updates.step()
        if self.after_step is not None:
            self.after_step(index)
        return value

    def _clear(self) -> None:
        for updates in self._updates:
            updates.clear()

    def _trained_weights(self) -> dict[str, Tensor]:
        """Copy what training changes; frozen parameters are rebuilt from the spec."""
        frozen = {name for name, value in self.model.named_parameters() if not value.requires_grad}
        return {
            name: value.detach().to("cpu", copy=True)  # a GPU's memory has better uses
            for name, value in self.model.state_dict().items()
            if name not in frozen
        }

    def _save(self) -> None:
        if self.checkpoint is None:
            return
        state = self._state
        newest_is_best = state.best_epoch == state.epoch
        self.checkpoint.save(
            {
                "epoch": state.epoch,
                "best_epoch": state.best_epoch,
                "best_score": state.best_score,
                "history": state.history,
                "weights": state.best_weights if newest_is_best else self._trained_weights(),
                "best_weights": None if newest_is_best else state.best_weights,
                "extra": None if self.extra is None else self.extra.state_dict(),
                "extra_state": None if self.extra_state is None else self.extra_state.get(),
                "updates": [updates.state_dict() for updates in self._updates],
                "generator": self.generator.get_state(),
                "random": random_state(),
                "micro_batches": self.backward.pieces,
            }
        )

    def _restore(self) -> None:
        saved = None if self.checkpoint is None else self.checkpoint.load()
        if saved is None:
            return
        self.model.load_state_dict(saved["weights"], strict=False)
        if self.extra is not None:
            self.extra.load_state_dict(saved["extra"])
        if self.extra_state is not None:
            self.extra_state.set(saved["extra_state"])
        for updates, state in zip(self._updates, saved["updates"], strict=True):
            updates.load_state_dict(state)
        self.generator.set_state(saved["generator"])
        set_random_state(saved["random"])
        self.backward.pieces = saved["micro_batches"]
        self._state = _State(
            epoch=saved["epoch"],
            best_epoch=saved["best_epoch"],
            best_score=saved["best_score"],
            best_weights=saved["best_weights"] or saved["weights"],
            history=saved["history"],
        )


@dataclass(frozen=True)
class ExtraState:
    """How the state of a stateful part, such as a policy, enters and leaves a checkpoint."""

    get: Callable[[], dict[str, Any]]
    set: Callable[[dict[str, Any]], None]


def _trainable(module: nn.Module | None) -> list[nn.Parameter]:
    if module is None:
        return []
    return [parameter for parameter in module.parameters() if parameter.requires_grad]


def _require_finite(metrics: Mapping[str, float], epoch: int, split: str) -> None:
    if all(math.isfinite(value) for value in metrics.values()):
        return
    parts = ", ".join(f"{name} {value:g}" for name, value in metrics.items())
    raise NonFiniteLoss(
        f"the {split} loss is not finite in epoch {epoch + 1} ({parts}); "
        "lower the learning rate, alpha or beta, or raise the temperature"
    )
