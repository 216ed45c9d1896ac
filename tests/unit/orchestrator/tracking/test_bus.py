from orchestrator.records import Stage, TrialState
from orchestrator.tracking import EventBus
from orchestrator.tracking.events import Event, Notice, StageFinished, SweepFinished


def test_events_are_stamped_once_and_never_backwards() -> None:
    seen: list[Event] = []
    times = iter([10.0, 5.0, 11.0])
    bus = EventBus([seen.append], clock=lambda: next(times))
    for _ in range(3):
        bus.emit(StageFinished(Stage.OUTPUTS))
    bus.emit(StageFinished(Stage.OUTPUTS, time_ms=42))
    assert [event.time_ms for event in seen] == [10_000, 10_000, 11_000, 42]


def test_a_broken_observer_is_reported_once_and_stops_nobody() -> None:
    seen: list[Event] = []

    def broken(event: Event) -> None:
        raise RuntimeError("no more ink")

    bus = EventBus([broken, seen.append])
    bus.emit(StageFinished(Stage.OUTPUTS))
    bus.emit(SweepFinished(TrialState.COMPLETE))
    assert [type(event) for event in seen] == [StageFinished, Notice, SweepFinished]
    notice = seen[1]
    assert isinstance(notice, Notice)
    assert "no more ink" in notice.text
    assert "Traceback" in notice.text


def test_an_observer_may_emit_and_all_see_the_same_order() -> None:
    first: list[Event] = []
    second: list[Event] = []
    bus = EventBus()

    def chatty(event: Event) -> None:
        first.append(event)
        if isinstance(event, StageFinished):
            bus.notice("stage over")

    bus.subscribe(chatty)
    bus.subscribe(second.append)
    bus.emit(StageFinished(Stage.OUTPUTS))
    assert first == second
    assert [type(event) for event in first] == [StageFinished, Notice]
