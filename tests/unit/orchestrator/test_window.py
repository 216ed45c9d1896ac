import numpy as np

from orchestrator.window import best_rows, to_show


def test_few_trials_are_all_shown() -> None:
    assert to_show([(1.0,), None, (2.0,)], best=1, shown=3) == [0, 1, 2]


def test_the_best_stay_however_old_and_the_latest_fill_up() -> None:
    losses = [(float(number),) for number in range(10)]  # the older, the better
    assert to_show(losses, best=2, shown=5) == [0, 1, 7, 8, 9]


def test_a_trial_without_a_value_can_only_be_among_the_latest() -> None:
    assert to_show([None, (5.0,), (1.0,), None, None], best=1, shown=3) == [2, 3, 4]
    assert to_show([None] * 5, best=2, shown=3) == [2, 3, 4]


def test_of_several_objectives_front_after_front_is_best() -> None:
    losses = np.array([[3.0, 3.0], [1.0, 2.0], [2.0, 1.0], [2.0, 2.0], [4.0, 4.0]])
    assert best_rows(losses, 2) == [1, 2]
    assert best_rows(losses, 3) == [1, 2, 3]
    assert best_rows(losses, 4) == [1, 2, 3, 0]


def test_equals_do_not_beat_each_other() -> None:
    assert best_rows(np.array([[1.0, 1.0], [1.0, 1.0], [0.0, 2.0]]), 3) == [0, 1, 2]
