from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from trainables.models._windows import WindowPool, _first_maximum

KERNELS = (2, 3, 4)


def inputs(seed: int = 0, rows: int = 5, width: int = 9) -> tuple[nn.Embedding, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    table = nn.Embedding(20, 6, padding_idx=0).double()
    lengths = torch.tensor([9, 4, 3, 1, 7][:rows])
    mask = torch.arange(width) < lengths.unsqueeze(1)
    ids = torch.randint(1, 20, (rows, width), generator=generator)
    return table, ids * mask, mask


def by_hand(pool: WindowPool, table: nn.Embedding, ids: Tensor, mask: Tensor) -> Tensor:
    """Loop over rows and windows, as the definition reads."""
    result = []
    for row, inside in zip(ids, mask, strict=True):
        vectors = table(row[inside])
        pooled = []
        for convolution in pool.convolutions:
            kernel = convolution.kernel_size[0]
            missing = max(kernel - len(vectors), 0)
            padded = torch.cat([vectors, vectors.new_zeros(missing, vectors.shape[1])])
            scores = [
                (convolution.weight * padded[start : start + kernel].T).sum((1, 2))
                + convolution.bias
                for start in range(len(padded) - kernel + 1)
            ]
            pooled.append(torch.stack(scores).amax(0).relu())
        result.append(torch.cat(pooled))
    return torch.stack(result)


@pytest.fixture
def pool() -> WindowPool:
    torch.manual_seed(0)
    return WindowPool(6, 5, KERNELS).double()


def test_both_forms_follow_the_definition(pool: WindowPool) -> None:
    table, ids, mask = inputs()
    expected = by_hand(pool, table, ids, mask).float()
    torch.testing.assert_close(pool(table(ids), mask), expected)
    torch.testing.assert_close(pool.of_table(table, ids, mask).float(), expected)


def test_both_forms_have_the_same_gradients(pool: WindowPool) -> None:
    table, ids, mask = inputs()
    parameters = [table.weight, *pool.parameters()]
    weights = torch.linspace(-1, 1, pool.n_features)

    def gradients(pooled: Tensor) -> tuple[Tensor, ...]:
        return torch.autograd.grad((pooled * weights).sum(), parameters)

    convolved = gradients(pool(table(ids), mask))
    projected = gradients(pool.of_table(table, ids, mask))
    for one, other in zip(convolved, projected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-7)


def test_gradient_agrees_with_finite_differences(pool: WindowPool) -> None:
    table, ids, mask = inputs()
    distinct, places = torch.unique(ids, return_inverse=True)
    rows = table(distinct).detach().requires_grad_()
    assert torch.autograd.gradcheck(lambda r: pool.over_tokens(r, places, mask), rows)


def test_rows_narrower_than_every_kernel(pool: WindowPool) -> None:
    table, ids, mask = inputs()
    ids, mask = ids[3:4, :1], mask[3:4, :1]
    expected = by_hand(pool, table, ids, mask).float()
    torch.testing.assert_close(pool.of_table(table, ids, mask).float(), expected)
    torch.testing.assert_close(pool(table(ids), mask), expected)


def test_sequence_keeps_the_windows_of_the_widest_kernel(pool: WindowPool) -> None:
    table, ids, mask = inputs()
    windows, inside = pool.sequence(table(ids), mask)
    assert windows.shape == (5, 6, pool.n_features)
    assert inside.sum(1).tolist() == [6, 1, 1, 1, 4]


def test_padding_does_not_make_the_result_zero() -> None:
    # All real windows score below zero plus bias; a window of padding would win the maximum.
    pool = WindowPool(1, 1, (2,))
    nn.init.ones_(pool.convolutions[0].weight)
    nn.init.constant_(pool.convolutions[0].bias, 5.0)
    states = torch.tensor([[[-1.0], [-1.0], [0.0], [0.0]]])
    mask = torch.tensor([[True, True, False, False]])
    assert pool(states, mask).item() == 3.0


def test_first_maximum_breaks_ties_and_survives_nan() -> None:
    sums = torch.tensor([[[1.0], [3.0], [3.0]]])
    assert _first_maximum(sums, sums.amax(1)).item() == 1
    broken = torch.full((1, 3, 1), torch.nan)
    assert 0 <= _first_maximum(broken, broken.amax(1)).item() < 3


def test_frequent_tokens_keep_small_gradients_in_bfloat16() -> None:
    """A token's gradient sums over the batch: bfloat16 sums would stop growing at 256 terms."""
    torch.manual_seed(0)
    pool = WindowPool(4, 1, (1,))
    nn.init.constant_(pool.convolutions[0].bias, 1.0)
    nn.init.ones_(pool.convolutions[0].weight)
    rows = torch.ones(1, 4, requires_grad=True)
    tokens, mask = torch.zeros(1000, 1, dtype=torch.int64), torch.ones(1000, 1, dtype=torch.bool)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        pooled = pool.over_tokens(rows, tokens, mask)
    pooled.sum().backward()
    assert rows.grad is not None
    torch.testing.assert_close(rows.grad, torch.full((1, 4), 1000.0), rtol=5e-3, atol=0)


@pytest.mark.parametrize(
    ("filters", "kernels", "rule"),
    [(0, (2,), "filters"), (4, (), "kernels"), (4, (2, 0), "kernels"), (4, (2.5,), "kernels")],
)
def test_refuses_impossible_sizes(filters: int, kernels: tuple[int, ...], rule: str) -> None:
    with pytest.raises(ValueError, match=f"{rule} must"):
        WindowPool(6, filters, kernels)
