import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainables.data import _rows

SIZES = st.lists(st.integers(1, 40), min_size=1, max_size=8)


def test_white_space_does_not_make_texts_different() -> None:
    prints = _rows.fingerprints(["a b", " a\t b\n", "ab"])
    assert prints[0] == prints[1] != prints[2]
    assert (prints >= 0).all()


def test_ids_are_unique_and_do_not_depend_on_other_rows() -> None:
    few = _rows.example_ids(_rows.fingerprints(["x", "y", "x"]))
    more = _rows.example_ids(_rows.fingerprints(["z", "x", "q", "x", "y", "x"]))
    assert len(set(more.tolist())) == 6
    assert few.tolist() == more[[1, 4, 3]].tolist()


@given(st.lists(st.sampled_from("abc"), max_size=30))
def test_ids_of_any_repetitions_are_unique(texts: list[str]) -> None:
    prints = _rows.fingerprints(texts)
    ids = _rows.example_ids(prints)
    assert len(set(ids.tolist())) == len(texts)
    assert _rows.repeated(prints).sum() == len(texts) - len(set(texts))


@given(sizes=SIZES, share=st.floats(0, 1), seed=st.integers(0, 5))
def test_stratified_takes_exactly_the_count_in_proportion(
    sizes: list[int], share: float, seed: int
) -> None:
    labels = np.repeat(np.arange(len(sizes)), sizes).astype(np.int64)
    order = _rows.shuffled(np.arange(len(labels)), seed, "dev")
    count = round(share * len(labels))
    chosen = _rows.stratified(labels, order, count, len(sizes))
    assert chosen.sum() == count
    takes = np.bincount(labels[chosen], minlength=len(sizes))
    big = np.array(sizes) >= 2
    if big.sum() <= count <= sum(size - 1 for size in sizes if size >= 2):
        assert (takes[big] >= 1).all()
        assert (takes[big] < np.array(sizes)[big]).all()
    if min(sizes) * count / len(labels) >= 1:
        assert np.abs(takes - np.array(sizes) * count / len(labels)).max() <= len(sizes)


def test_split_survives_reordering_and_differs_by_seed_and_purpose() -> None:
    ids = _rows.fingerprints([f"text {number}" for number in range(50)])
    first = ids[_rows.shuffled(ids, 0, "dev")]
    backwards = ids[::-1].copy()
    assert (backwards[_rows.shuffled(backwards, 0, "dev")] == first).all()
    for seed, purpose in ((1, "dev"), (0, "test")):
        assert (ids[_rows.shuffled(ids, seed, purpose)] != first).any()


def test_small_classes_are_on_both_sides() -> None:
    labels = np.array([0] * 96 + [1] * 2 + [2] * 2)
    order = _rows.shuffled(np.arange(100), 0, "dev")
    takes = np.bincount(labels[_rows.stratified(labels, order, 10, 3)])
    assert takes.tolist() == [8, 1, 1]


def test_too_many_rows_is_a_bug_of_the_caller() -> None:
    with pytest.raises(AssertionError):
        _rows.stratified(np.zeros(3, np.int64), np.arange(3), 4, 1)
