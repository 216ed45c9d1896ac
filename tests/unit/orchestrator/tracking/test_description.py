"""The description of a sweep's run: on the parent, and never too long for MLflow."""

from orchestrator.tracking.events import Described, SweepStarted
from orchestrator.tracking.outbox import Entry
from orchestrator.tracking.runs import MAX_TAG, RunKey
from orchestrator.tracking.translator import DESCRIPTION, Translator


def test_a_description_becomes_the_parent_s_note() -> None:
    translator = Translator()
    events = [SweepStarted("news", time_ms=1), Described("x" * 9000, time_ms=2)]
    _, update = [translator.translate(Entry(n, n, event)) for n, event in enumerate(events)]
    assert update is not None and update.run == RunKey("news", "sweep", "news")
    assert update.tags == {DESCRIPTION: "x" * MAX_TAG}
