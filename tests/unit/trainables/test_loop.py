from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainables.checkpoint import Checkpoint
from trainables.errors import NonFiniteLoss
from trainables.loop import ExtraState, Fit, OptimizerSpec
from trainables.microbatch import LossParts
from trainables.models._output import ModelOutput
from trainables.optimizer import build_optimizer, linear_schedule

ROWS, CLASSES, BATCH = 40, 3, 8
INPUTS = torch.randn(ROWS, 5, generator=torch.Generator().manual_seed(0))
TARGETS = INPUTS[:, :CLASSES].argmax(1)
TIMES = {"train_seconds", "epoch_seconds", "samples_per_second"}


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.frozen = nn.Linear(5, 5).requires_grad_(False)
        self.lower = nn.Linear(5, 6)
        self.norm = nn.LayerNorm(6)
        self.upper = nn.Linear(6, CLASSES)

    def forward(self, inputs: Tensor) -> ModelOutput:
        features = F.dropout(self.norm(self.lower(self.frozen(inputs))), 0.3, self.training)
        return ModelOutput(self.upper(features), features)


class Run:
    """A fit of ``Net`` with everything that has a state: dropout, projection, policy, SGD."""

    def __init__(self, checkpoint: Checkpoint | None = None, **changes: Any) -> None:
        torch.manual_seed(1)
        self.net, self.projection = Net(), nn.Linear(6, 2)
        self.generator = torch.Generator().manual_seed(2)
        self.policy = torch.zeros(1)
        self.scores: Callable[[int], float] = changes.pop("scores", lambda epoch: float(epoch))
        self.poison: Callable[[int, int], bool] = changes.pop("poison", lambda epoch, step: False)
        self.position = (0, 0)
        settings = {
            "epochs": 4,
            "optimizer": OptimizerSpec(lr=0.05, weight_decay=0.1, warmup=0.3),
        } | changes
        self.fit = Fit(
            self.net,
            extra=self.projection,
            steps_per_epoch=ROWS // BATCH,
            batches=self.batches,
            forward=self.forward,
            loss=self.loss,
            evaluate=self.evaluate,
            generator=self.generator,
            checkpoint=checkpoint,
            after_step=self.learn,
            extra_state=ExtraState(lambda: {"policy": self.policy}, self.restore),
            **settings,
        )

    def batches(self, epoch: int) -> list[Tensor]:
        order = torch.randperm(ROWS, generator=self.generator)
        self.position = (epoch, -1)
        return list(order.split(BATCH))

    def forward(self, index: Tensor) -> ModelOutput:
        self.position = (self.position[0], self.position[1] + 1)
        output: ModelOutput = self.net(INPUTS[index])
        return output

    def loss(self, index: Tensor, output: ModelOutput) -> tuple[Tensor, LossParts]:
        ce = F.cross_entropy(output.logits, TARGETS[index])
        hint = (self.projection(output.features) - INPUTS[index, :2]).square().mean()
        if self.poison(*self.position):
            hint = hint * float("nan")
        parts = {"ce": ce.detach(), "hint": hint.detach()}
        return ce + 0.1 * hint * (1 + self.policy), parts

    def learn(self, index: Tensor) -> None:
        self.policy = self.policy * 0.9 + float(index.float().mean()) / ROWS

    def restore(self, state: dict[str, Any]) -> None:
        self.policy = state["policy"]

    def evaluate(self) -> dict[str, float]:
        with torch.no_grad():
            value = float(F.cross_entropy(self.net(INPUTS).logits, TARGETS))
        return {"val_f1_macro": self.scores(self.position[0] + 1), "val_loss": value}

    def weights(self) -> dict[str, Tensor]:
        both = {**self.net.state_dict(), **self.projection.state_dict(prefix="projection.")}
        return {name: value.clone() for name, value in both.items()}


def timeless(history: list[dict[str, float]]) -> list[dict[str, float]]:
    return [
        {name: value for name, value in entry.items() if name not in TIMES} for entry in history
    ]


def assert_same(left: Run, right: Run) -> None:
    assert timeless(left.fit.history) == timeless(right.fit.history)
    assert left.fit.best_epoch == right.fit.best_epoch
    for name, value in left.weights().items():
        assert torch.equal(value, right.weights()[name]), name


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
@pytest.mark.parametrize("died_after", [1, 2, 3])
@pytest.mark.parametrize("best", [1, 2, 4])
def test_a_resumed_run_equals_an_uninterrupted_one(
    tmp_path: Path, died_after: int, best: int, optimizer: str
) -> None:
    changes: dict[str, Any] = {
        "scores": lambda epoch: 1.0 if epoch == best else 0.1 * epoch,
        "optimizer": OptimizerSpec(name=optimizer, lr=0.05, weight_decay=0.1, warmup=0.3),
    }
    whole = Run(**changes)
    reports = list(whole.fit)
    assert [report.epoch for report in reports] == [1, 2, 3, 4]
    assert [report.last for report in reports] == [False, False, False, True]

    checkpoint = Checkpoint(tmp_path, "key")
    first = Run(checkpoint, **changes)
    for report in first.fit:
        if report.epoch == died_after:
            break
    torch.manual_seed(99)
    second = Run(checkpoint, **changes)
    torch.randn(7)
    assert [report.epoch for report in second.fit] == list(range(died_after + 1, 5))
    assert_same(second, whole)


def test_dying_after_every_epoch(tmp_path: Path) -> None:
    whole = Run()
    list(whole.fit)
    checkpoint = Checkpoint(tmp_path, "key")
    for epoch in range(1, 5):
        run = Run(checkpoint)
        assert next(iter(run.fit)).epoch == epoch
    assert_same(run, whole)


def test_a_damaged_checkpoint_trains_from_the_start(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path, "key")
    next(iter(Run(checkpoint).fit))
    checkpoint.path.write_bytes(b"garbage")
    assert [report.epoch for report in Run(checkpoint).fit] == [1, 2, 3, 4]


def test_the_best_epoch_is_kept_and_ties_go_to_the_earlier() -> None:
    run = Run(scores=lambda epoch: {1: 0.2, 2: 0.9, 3: 0.9, 4: 0.1}[epoch])
    kept: dict[int, dict[str, Tensor]] = {}
    for report in run.fit:
        if not report.last:
            kept[report.epoch] = run.weights()
    assert run.fit.best_epoch == 2
    final = run.weights()
    for name in run.net.state_dict():
        assert torch.equal(final[name], kept[2][name])
    assert not torch.equal(kept[3]["upper.weight"], kept[2]["upper.weight"])


def test_frozen_parameters_are_not_in_the_checkpoint_and_do_not_move(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path, "key")
    run = Run(checkpoint)
    before = run.net.frozen.weight.clone()
    next(iter(run.fit))
    saved = checkpoint.load()
    assert saved is not None
    assert "lower.weight" in saved["weights"]
    assert "frozen.weight" not in saved["weights"]
    assert torch.equal(run.net.frozen.weight, before)


@pytest.mark.parametrize("step", [0, 4])
def test_a_nan_names_the_epoch_and_the_parts(step: int) -> None:
    run = Run(poison=lambda epoch, number: (epoch, number) == (1, step))
    with pytest.raises(
        NonFiniteLoss, match=r"training loss is not finite in epoch 2 \(.*train_hint nan"
    ):
        list(run.fit)
    assert len(run.fit.history) == 1


def test_weights_broken_by_the_last_step_are_found_on_dev() -> None:
    class Late(Run):
        def learn(self, index: Tensor) -> None:
            if self.position == (0, 4):
                with torch.no_grad():
                    self.net.upper.weight.fill_(float("inf"))

    with pytest.raises(NonFiniteLoss, match="dev loss is not finite in epoch 1"):
        list(Late().fit)


def test_train_metrics_are_means_over_the_steps_that_have_them() -> None:
    class Sometimes(Run):
        def loss(self, index: Tensor, output: ModelOutput) -> tuple[Tensor, LossParts]:
            total, _ = super().loss(index, output)
            step = self.position[1]
            parts = {"kd": torch.tensor(float(step))} if step % 2 == 0 else {}
            return total, parts

    report = next(iter(Sometimes().fit))
    assert report.metrics["train_kd"] == 2.0  # steps 0, 2 and 4


def test_memory_that_runs_out_halves_the_batch_and_is_recorded(tmp_path: Path) -> None:
    class Cramped(Run):
        def forward(self, index: Tensor) -> ModelOutput:
            if torch.is_grad_enabled() and len(index) > 3:
                raise torch.OutOfMemoryError("CUDA out of memory (a stand-in)")
            return super().forward(index)

    checkpoint = Checkpoint(tmp_path, "key")
    first = next(iter(Cramped(checkpoint).fit))
    assert first.metrics["micro_batches"] == 4.0
    second = Cramped(checkpoint)
    next(iter(second.fit))
    assert second.fit.backward.pieces == 4
    assert "micro_batches" not in next(iter(Run().fit)).metrics


def test_the_gradient_is_clipped_over_all_parameters_together() -> None:
    seen: list[float] = []

    class Watched(Run):
        def learn(self, index: Tensor) -> None:
            norms = [p.grad.norm() for p in self.fit.parameters if p.grad is not None]
            seen.append(float(torch.stack(norms).norm()))

    next(iter(Watched(optimizer=OptimizerSpec(max_grad_norm=0.01)).fit))
    assert seen == pytest.approx([0.01] * 5, rel=1e-3)
    seen.clear()
    next(iter(Watched(optimizer=OptimizerSpec(max_grad_norm=None)).fit))
    assert min(seen) > 0.02


def test_the_rate_rises_then_falls_to_zero() -> None:
    factors = [linear_schedule(step, 100, 0.1) for step in range(101)]
    assert factors[0] == pytest.approx(1 / 11)
    assert max(factors) == factors[10] == 1.0
    rising = factors[:11]
    assert rising == sorted(rising)
    assert factors[10:] == sorted(factors[10:], reverse=True)
    assert factors[55] == pytest.approx(0.5)
    assert factors[100] == 0.0
    assert [linear_schedule(step, 4, 0.0) for step in range(4)] == [1.0, 0.75, 0.5, 0.25]


def test_weight_decay_is_for_matrices_only() -> None:
    net = Net()
    optimizer = build_optimizer(list(net.parameters()), OptimizerSpec(lr=1.0, weight_decay=0.5))
    before = {name: value.clone() for name, value in net.named_parameters()}
    for parameter in net.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for name, value in net.named_parameters():
        expected = before[name] * (0.5 if value.ndim == 2 else 1.0)
        torch.testing.assert_close(value.detach(), expected.detach())


def test_an_unknown_optimizer_is_refused() -> None:
    with pytest.raises(ValueError, match="must be 'adamw' or 'sgd', got 'lion'"):
        build_optimizer([nn.Parameter(torch.zeros(2, 2))], OptimizerSpec(name="lion"))
