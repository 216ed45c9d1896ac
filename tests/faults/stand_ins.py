"""Components that misbehave on purpose; the sweeps of these tests name them in their configs."""

import os
import time

import torch
from torch import Tensor

from trainables.losses.kd import KD
from trainables.models._output import ModelOutput
from trainables.models.linear import Linear
from trainables.models.textcnn import TextCNN


class Slow(KD):
    """KD that takes its time in every batch, so that something can happen meanwhile."""

    def __init__(self, *, seconds: float = 0.1, temperature: float = 1.0) -> None:
        super().__init__(temperature=temperature)
        self.seconds = seconds

    def __call__(self, student_logits: Tensor, teacher_logits: Tensor, targets: Tensor) -> Tensor:
        time.sleep(self.seconds)
        return super().__call__(student_logits, teacher_logits, targets)


class Bug(KD):
    """KD with an error that comes again whenever it is tried."""

    def __call__(self, student_logits: Tensor, teacher_logits: Tensor, targets: Tensor) -> Tensor:
        raise KeyError("a bug of the stand-in")


class Diverging(KD):
    """KD that is infinite from the first batch on; the weights are no numbers after it."""

    def __call__(self, student_logits: Tensor, teacher_logits: Tensor, targets: Tensor) -> Tensor:
        return super().__call__(student_logits, teacher_logits, targets) * float("inf")


class Hungry(KD):
    """KD that fills the host's memory with as many megabytes as the environment says."""

    def __init__(self, *, temperature: float = 1.0) -> None:
        super().__init__(temperature=temperature)
        self._kept: list[Tensor] = []

    def __call__(self, student_logits: Tensor, teacher_logits: Tensor, targets: Tensor) -> Tensor:
        megabytes = int(os.environ["FAULTS_HUNGRY_MB"])
        if not self._kept:
            self._kept = [torch.ones(2**18) for _ in range(megabytes)]
            time.sleep(20)  # the monitor looks now and then
        return super().__call__(student_logits, teacher_logits, targets)


class Cramped(TextCNN):
    """TextCNN on a GPU that holds so many rows with gradients, shared by those who sit on it.

    Below a share of ``least`` not even one row fits. CUDA's error is raised without CUDA.
    """

    def __init__(
        self,
        n_classes: int,
        vocab_size: int,
        filters: int = 16,
        embedding_dim: int = 16,
        freeze_embedding: bool = False,
        least: float = 0.0,
        rows: int = 64,
    ) -> None:
        super().__init__(
            n_classes,
            vocab_size,
            filters=filters,
            kernels=(1, 2),
            embedding_dim=embedding_dim,
            freeze_embedding=freeze_embedding,
            dropout=0.0,
        )
        self.least = least
        self.rows = rows

    def forward(self, input_ids: Tensor, mask: Tensor) -> ModelOutput:
        if torch.is_grad_enabled():
            share = _gpu_share()
            room = int(self.rows * share) if share >= self.least else 0
            if len(input_ids) > room:
                raise torch.OutOfMemoryError(
                    f"CUDA out of memory: {len(input_ids)} rows, room for {room} (a stand-in)"
                )
        return super().forward(input_ids, mask)


def _gpu_share() -> float:
    import ray

    resources = ray.get_runtime_context().get_assigned_resources()
    return float(resources.get("GPU", 0.0))


class SlowLinear(Linear):
    """A teacher that takes its time, so that another sweep comes to want it meanwhile."""

    def forward(self, input_ids: Tensor, mask: Tensor) -> ModelOutput:
        if torch.is_grad_enabled():
            time.sleep(0.25)
        return super().forward(input_ids, mask)
