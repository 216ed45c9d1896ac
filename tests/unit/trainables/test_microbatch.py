import copy
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainables import catalog
from trainables.microbatch import Backward, LossParts
from trainables.models._output import ModelOutput
from trainables.objective import Objective

ROWS, WIDTH, CLASSES = 13, 6, 3
INPUTS = torch.randn(ROWS, WIDTH, generator=torch.Generator().manual_seed(0))
TARGETS = torch.tensor([0, 1, 2, -100, -100, -100, -100, 0, 1, 2, 0, -100, 1])
TEACHERS = torch.randn(2, ROWS, CLASSES, generator=torch.Generator().manual_seed(1))
THEIRS = [torch.randn(ROWS, 5, generator=torch.Generator().manual_seed(2)) for _ in range(2)]


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.lower = nn.Linear(WIDTH, 4)
        self.upper = nn.Linear(4, CLASSES)

    def forward(self, inputs: Tensor) -> ModelOutput:
        features = self.lower(inputs).tanh()
        return ModelOutput(self.upper(features), features)


def memory_for(rows: int, forward: Callable[[Tensor], ModelOutput]) -> Callable[..., ModelOutput]:
    """Stand in for a GPU on which only so many rows fit when gradients are kept."""

    def run(index: Tensor) -> ModelOutput:
        if torch.is_grad_enabled() and len(index) > rows:
            raise torch.OutOfMemoryError("CUDA out of memory (a stand-in)")
        return forward(index)

    return run


def objective(loss: str, hint: str | None) -> Objective:
    torch.manual_seed(6)
    component = None
    if hint is not None:
        component = catalog.build("hints", hint)
        component.setup(4, [5, 5])
    return Objective(
        loss=catalog.build("losses", loss),
        weighting=catalog.build("weightings", "entropy"),
        hint=component,
        ce_weight=0.7,
        alpha=1.3,
        beta=0.9,
    )


def gradients(
    rows: int, loss: str = "kd", hint: str | None = None
) -> tuple[int, float, dict[str, Tensor]]:
    model, goal = Small(), objective(loss, hint)

    def compute(index: Tensor, output: ModelOutput) -> tuple[Tensor, LossParts]:
        value = goal(
            output.logits,
            TARGETS[index],
            TEACHERS[:, index],
            student_features=output.features,
            teacher_features=[part[index] for part in THEIRS],
        )
        return value.total, value.parts

    both = nn.ModuleDict({"model": model, "goal": goal})
    backward = Backward(memory_for(rows, lambda index: model(INPUTS[index])), compute)
    value = backward(torch.arange(ROWS), both.zero_grad)
    found = {
        name: copy.deepcopy(parameter.grad)
        for name, parameter in both.named_parameters()
        if parameter.grad is not None
    }
    return backward.pieces, float(value.total), found


@pytest.mark.parametrize(("rows", "pieces"), [(7, 2), (4, 4), (2, 8), (1, 16)])
@pytest.mark.parametrize(("loss", "hint"), [("kd", None), ("dist", None), ("kd", "smooth_l1")])
def test_pieces_give_the_gradient_of_the_whole_batch(
    rows: int, pieces: int, loss: str, hint: str | None
) -> None:
    _, total, expected = gradients(ROWS, loss, hint)
    cut, total_in_pieces, found = gradients(rows, loss, hint)
    assert cut == pieces
    assert total_in_pieces == pytest.approx(total, rel=1e-6)
    assert set(found) == set(expected)
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-6)


def test_averaging_the_pieces_would_be_another_loss() -> None:
    """The labelled rows are spread unevenly: this is what makes the two passes necessary."""
    whole = F.cross_entropy(INPUTS[:, :CLASSES], TARGETS)
    halves = [
        F.cross_entropy(INPUTS[part, :CLASSES], TARGETS[part])
        for part in torch.arange(ROWS).tensor_split(2)
    ]
    assert abs(float(whole - sum(halves) / 2)) > 1e-2


def test_dropout_is_the_same_in_both_passes() -> None:
    model = Small()
    seen: list[Tensor] = []

    def forward(index: Tensor) -> ModelOutput:
        dropped = F.dropout(INPUTS[index], 0.5)
        seen.append(dropped)
        return model(dropped)

    backward = Backward(forward, lambda _, output: (output.logits.square().mean(), {}))
    backward.pieces = 3
    backward(torch.arange(ROWS), model.zero_grad)
    for first, second in zip(seen[:3], seen[3:], strict=True):
        assert torch.equal(first, second)


def test_a_single_row_that_does_not_fit_is_out_of_memory() -> None:
    model = Small()
    backward = Backward(
        memory_for(0, lambda index: model(INPUTS[index])),
        lambda _, output: (output.logits.sum(), {}),
    )
    with pytest.raises(torch.OutOfMemoryError):
        backward(torch.arange(ROWS), model.zero_grad)


def test_other_errors_are_not_retried() -> None:
    calls = []

    def forward(index: Tensor) -> ModelOutput:
        calls.append(index)
        raise RuntimeError("shape mismatch")

    backward = Backward(forward, lambda _, output: (output.logits.sum(), {}))
    with pytest.raises(RuntimeError, match="shape mismatch"):
        backward(torch.arange(ROWS), lambda: None)
    assert len(calls) == 1
