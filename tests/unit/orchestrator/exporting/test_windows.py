"""Windows as products and sums give the numbers of the convolutions they stand for."""

import torch
from torch import nn

from orchestrator.exporting.windows import ExportedWindows, replace_windows
from trainables.models._windows import WindowPool


def rows() -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    mask = torch.arange(6) < torch.tensor([[6], [4], [1], [3]])
    return torch.randn(4, 6, 5) * mask.unsqueeze(-1), mask


def test_states_are_pooled_alike() -> None:
    pool = WindowPool(5, 3, (1, 2, 4))
    states, mask = rows()
    torch.testing.assert_close(ExportedWindows(pool)(states, mask), pool(states, mask))


def test_windows_in_order_are_alike() -> None:
    pool = WindowPool(5, 3, (2, 3))
    states, mask = rows()
    expected, inside = pool.sequence(states, mask)
    found, where = ExportedWindows(pool).sequence(states, mask)
    torch.testing.assert_close(found, expected)
    assert torch.equal(where, inside)


def test_tokens_are_pooled_alike() -> None:
    pool = WindowPool(5, 3, (2, 3))
    table = nn.Embedding(9, 5, padding_idx=0)
    _, mask = rows()
    tokens = torch.randint(1, 9, (4, 6)) * mask
    torch.testing.assert_close(
        ExportedWindows(pool).of_table(table, tokens, mask), pool.of_table(table, tokens, mask)
    )


def test_every_pool_inside_a_model_is_replaced() -> None:
    model = nn.ModuleDict({"one": WindowPool(5, 3, (1, 2)), "deep": nn.ModuleList([])})
    model["deep"].append(WindowPool(5, 3, (4,)))  # type: ignore[operator]
    assert replace_windows(model) == 4
    assert not any(isinstance(module, WindowPool) for module in model.modules())
    assert replace_windows(nn.Linear(1, 1)) == 1
