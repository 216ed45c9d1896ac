"""What every schedule must do, whichever files are there."""

from __future__ import annotations

import pytest

from trainables.catalog import build, names
from trainables.errors import ComponentError

SCHEDULES = names("schedules")


def test_all_schedules_are_found() -> None:
    assert len(SCHEDULES) >= 2


@pytest.mark.parametrize("name", SCHEDULES)
class TestEverySchedule:
    def test_anchors_end_with_the_trained_teacher(self, name: str) -> None:
        anchors = build("schedules", name).anchors
        assert list(anchors) == sorted(set(anchors))
        assert anchors[-1] == 1.0
        assert anchors[0] > 0

    @pytest.mark.parametrize("epochs", [1, 2, 3, 5, 10, 37])
    def test_anchors_only_advance_and_end_with_the_last(self, name: str, epochs: int) -> None:
        schedule = build("schedules", name)
        active = [schedule(epoch, epochs) for epoch in range(epochs)]
        assert active == sorted(active)
        assert active[-1] == len(schedule.anchors) - 1
        assert not schedule.due(0, epochs)

    def test_state_survives_a_checkpoint(self, name: str) -> None:
        first, second = build("schedules", name), build("schedules", name)
        second.load_state_dict(first.state_dict())
        assert second(0, 5) == first(0, 5)
        assert "Source: " in (type(first).__doc__ or "")


def _route(epochs: int, **params: object) -> list[int]:
    schedule = build("schedules", "rco", **params)
    return [schedule(epoch, epochs) for epoch in range(epochs)]


class TestRCO:
    def test_equal_intervals(self) -> None:
        assert _route(8, last_share=0.0) == [0, 0, 1, 1, 2, 2, 3, 3]
        assert _route(6, anchors=[0.5, 1.0]) == [0, 0, 0, 1, 1, 1]

    def test_the_last_anchor_keeps_its_share(self) -> None:
        assert _route(10) == [0, 0, 1, 1, 2, 2, 3, 3, 3, 3]
        assert _route(15).count(3) == 6
        assert _route(5) == [0, 1, 2, 3, 3]

    def test_one_anchor_is_the_constant_schedule(self) -> None:
        assert _route(7, anchors=[1.0]) == [0] * 7

    def test_greedy_skips_anchors_that_are_near(self) -> None:
        schedule = build("schedules", "rco", search="greedy", threshold=1.5)
        assert [epoch for epoch in range(10) if schedule.due(epoch, 10)] == [2, 4]
        assert schedule(0, 10) == 0
        assert schedule.advance([1.0, 1.2, 1.4, 2.0]) == 2
        assert [schedule(epoch, 10) for epoch in (2, 5, 6, 9)] == [2, 2, 3, 3]

    def test_greedy_moves_on_when_nothing_is_near(self) -> None:
        schedule = build("schedules", "rco", search="greedy")
        assert schedule.advance([0.0, 9.0, 9.0, 9.0]) == 1
        assert schedule.advance([0.0, 1.0, 9.0, 9.0]) == 2
        other = build("schedules", "rco", search="greedy")
        other.load_state_dict(schedule.state_dict())
        assert other(0, 10) == 2
        assert [other.advance([1.0, 1.0, 1.0, 9.0]) for _ in range(2)] == [3, 3]

    def test_refusals(self) -> None:
        for anchors in ([0.5], [0.5, 0.2, 1.0], [], [0.0, 1.0], [0.5, 1.5]):
            with pytest.raises(ComponentError, match="anchors must"):
                build("schedules", "rco", anchors=anchors)
        with pytest.raises(ComponentError, match="last_share"):
            build("schedules", "rco", last_share=1.2)
        with pytest.raises(ValueError, match="each of 4 anchors, but got 1"):
            build("schedules", "rco", search="greedy").advance([1.0])


def test_a_schedule_by_epoch_has_nothing_to_choose() -> None:
    with pytest.raises(NotImplementedError, match="Constant"):
        build("schedules", "constant").advance([1.0])
