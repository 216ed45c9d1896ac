from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trainables.batching import LengthBuckets, gather, sequential_batches
from trainables.encoded import Encoded, concatenate

LENGTHS = st.lists(st.integers(1, 30), max_size=120)


def encoded(rows: list[list[int]], pad_id: int = 0) -> Encoded:
    counts = torch.tensor([len(row) for row in rows])
    starts = torch.cat([torch.zeros(1, dtype=torch.int64), counts.cumsum(0)[:-1]])
    tokens = torch.tensor([token for row in rows for token in row], dtype=torch.int32)
    ids = torch.arange(len(rows))
    return Encoded(tokens, starts, counts, ids, ids % 2, pad_id)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@settings(deadline=None)
@given(lengths=LENGTHS, size=st.integers(1, 16), pool=st.integers(1, 5), seed=st.integers(0, 3))
def test_every_index_comes_once_an_epoch(
    lengths: list[int], size: int, pool: int, seed: int
) -> None:
    buckets = LengthBuckets(torch.tensor(lengths), size, generator(seed), pool)
    for _ in range(2):
        batches = list(buckets)
        assert len(batches) == len(buckets)
        assert sorted(index for batch in batches for index in batch.tolist()) == list(
            range(len(lengths))
        )
        assert sum(len(batch) < size for batch in batches) <= 1


def test_epochs_differ_and_the_seed_repeats_them() -> None:
    lengths = torch.randint(1, 30, (500,), generator=generator())
    first, again = (LengthBuckets(lengths, 16, generator(7)) for _ in range(2))
    epochs = [torch.cat(list(first)) for _ in range(2)]
    assert torch.equal(epochs[0], torch.cat(list(again)))
    assert not torch.equal(epochs[0], epochs[1])


def test_batches_have_similar_lengths_but_not_sorted_order() -> None:
    lengths = torch.randint(1, 100, (5000,), generator=generator())
    batches = list(LengthBuckets(lengths, 50, generator(), pool=20))
    spreads = [int(lengths[batch].max() - lengths[batch].min()) for batch in batches]
    assert max(spreads) < 30
    longest = [int(lengths[batch].max()) for batch in batches]
    assert any(one > two for one, two in pairwise(longest))
    assert any(one < two for one, two in pairwise(longest))


def test_arguments_are_checked() -> None:
    with pytest.raises(ValueError, match="batch_size=0"):
        LengthBuckets(torch.ones(3), 0, generator())


@given(lengths=LENGTHS, size=st.integers(1, 16))
def test_sequential_batches_cover_longest_first(lengths: list[int], size: int) -> None:
    order = [index for batch in sequential_batches(torch.tensor(lengths), size) for index in batch]
    assert sorted(order) == list(range(len(lengths)))
    assert [lengths[index] for index in order] == sorted(lengths, reverse=True)


@given(
    rows=st.lists(st.lists(st.integers(2, 99), min_size=1, max_size=9), min_size=1, max_size=20),
    multiple=st.sampled_from([1, 8]),
    data=st.data(),
)
def test_gather_equals_a_loop(rows: list[list[int]], multiple: int, data: st.DataObject) -> None:
    index = data.draw(st.lists(st.integers(0, len(rows) - 1), min_size=1, max_size=12))
    input_ids, mask = gather(encoded(rows, pad_id=1), torch.tensor(index), pad_to_multiple=multiple)
    assert input_ids.dtype == torch.int64
    assert input_ids.shape == mask.shape
    assert mask.shape[1] % multiple == 0
    assert mask.shape[1] - max(len(rows[number]) for number in index) < multiple
    for place, number in enumerate(index):
        width = len(rows[number])
        assert input_ids[place].tolist() == rows[number] + [1] * (mask.shape[1] - width)
        assert mask[place].tolist() == [column < width for column in range(mask.shape[1])]


def test_joint_rows_of_two_splits() -> None:
    joined = concatenate([encoded([[2, 3], [4]]), encoded([[5, 6, 7]])])
    input_ids, _ = gather(joined, torch.tensor([2, 1]))
    assert input_ids.tolist() == [[5, 6, 7], [4, 0, 0]]
    assert joined.lengths.tolist() == [2, 1, 3]
    assert joined.subset([2, 0]).ids.tolist() == [0, 0]
    with pytest.raises(ValueError, match="different tokenizers"):
        concatenate([encoded([[2]]), encoded([[2]], pad_id=1)])
