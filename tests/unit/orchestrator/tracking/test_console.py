import io
import re

import pytest
from rich.console import Console as RichConsole

from orchestrator.records import Stage, TrialState
from orchestrator.tracking.console import Console
from orchestrator.tracking.events import (
    Event,
    Notice,
    StageFinished,
    StageStarted,
    SweepFinished,
    SweepStarted,
    TrialFinished,
    TrialReported,
    TrialStarted,
)
from orchestrator.tracking.lines import duration, reason
from orchestrator.tracking.view import clock_time

S = Stage.STUDENTS
TRACEBACK = "Traceback (most recent call last):\n  File 'x'\nNonFiniteLoss: NaN at epoch 2"


class Shipping:
    last_error: str | None = None
    behind = 0

    def lag(self) -> int:
        return self.behind


class Stage80:
    """A console of a given width with a clock that tests move."""

    def __init__(self, mode: str, width: int = 80, terminal: bool = False) -> None:
        self.now = 0.0
        self.out = io.StringIO()
        self.shipping = Shipping()
        self.rich = RichConsole(file=self.out, width=width, height=30, force_terminal=terminal)
        self.console = Console(
            mode,  # type: ignore[arg-type]
            shipping=self.shipping,
            rich_console=self.rich,
            clock=lambda: self.now,
        )

    def play(self, *events: Event | float) -> list[str]:
        self.out.seek(0)
        self.out.truncate()
        for event in events:
            if isinstance(event, float):
                self.now += event
            else:
                self.console.observe(event)
        return self.out.getvalue().splitlines()

    def frame(self) -> str:
        self.out.seek(0)
        self.out.truncate()
        self.rich.print(self.console.render())
        return self.out.getvalue()


SWEEP = (
    SweepStarted("news", estimates={"students": 240.0, "confirm": 60.0}),
    StageStarted(S, total=60, cached=10, slots=2),
)


def finish(key: str, state: TrialState, value: float, **more: object) -> tuple[Event | float, ...]:
    return (
        TrialStarted(S, key, f"kd T={key}", epochs=5),
        TrialReported(S, key, 1, {"val_f1_macro": value}),
        8.2,
        TrialFinished(S, key, state, seconds=8.2, **more),  # type: ignore[arg-type]
    )


def test_lines_are_one_per_event_with_label_value_best_and_eta() -> None:
    stage = Stage80("auto")
    assert stage.play(*SWEEP) == [
        "[sweep news] started, about 5 min",
        "[students 10/60] 10 cached, 50 to run, 2 at a time, about 4 min",
    ]
    assert stage.play(*finish("3.1", TrialState.COMPLETE, 0.712)) == [
        "[students 11/60] complete kd T=3.1: val_f1_macro 0.712 (best 0.712) 8.2 s, ETA 3 min"
    ]
    assert stage.play(*finish("9", TrialState.PRUNED, 0.5)) == [
        "[students 12/60] pruned kd T=9: val_f1_macro 0.500 (best 0.712) 8.2 s, ETA 3 min"
    ]
    assert stage.play(*finish("7", TrialState.FAILED, 0.5, error=TRACEBACK)) == [
        "[students 13/60] failed kd T=7 after 8.2 s: NonFiniteLoss: NaN at epoch 2, ETA 3 min"
    ]
    assert stage.play(*finish("8", TrialState.DUPLICATE, 0.5)) == []
    assert stage.play(StageFinished(S), SweepFinished(TrialState.LOST)) == [
        "[students 13/60] done in 33 s",
        "[sweep news] interrupted after 33 s",
    ]


def test_epochs_and_starts_are_said_only_after_half_a_minute_of_silence() -> None:
    stage = Stage80("lines")
    stage.play(*SWEEP)
    trial = TrialStarted(S, "a", "bert", epochs=5)
    report = TrialReported(S, "a", 1, {"val_f1_macro": 0.5})
    assert stage.play(trial, report, 29.0, report) == []
    assert stage.play(2.0, report, report) == [
        "[students 10/60] epoch 1/5 bert: val_f1_macro 0.500"
    ]
    assert stage.play(trial) == ["[students 10/60] started again bert"]
    assert stage.play(31.0, TrialStarted(S, "b", "bert_cnn")) == [
        "[students 10/60] started bert_cnn"
    ]


def test_trouble_with_mlflow_is_said_when_it_begins_and_ends() -> None:
    stage = Stage80("lines")
    stage.play(*SWEEP)
    stage.shipping.behind, stage.shipping.last_error = 7, "it does not answer"
    report = TrialReported(S, "a", 1, {})
    assert stage.play(report, report) == ["[mlflow] 7 events behind: it does not answer"]
    stage.shipping.behind, stage.shipping.last_error = 0, None
    assert stage.play(report, report) == ["[mlflow] delivering again"]


def test_quiet_shows_warnings_only() -> None:
    stage = Stage80("quiet")
    lines = stage.play(
        *SWEEP,
        *finish("a", TrialState.COMPLETE, 0.5),
        Notice("info", "nothing"),
        Notice("warning", "the teacher is [weak]"),
        SweepFinished(TrialState.COMPLETE),
    )
    assert lines == ["[warning] the teacher is [weak]"]


@pytest.mark.parametrize("width", [40, 60, 80, 100, 160])
def test_the_view_fits_every_width_and_shows_what_matters(width: int) -> None:
    stage = Stage80("quiet", width)
    stage.play(
        *SWEEP,
        *finish("3.1", TrialState.COMPLETE, 0.7123),
        *finish("7", TrialState.FAILED, 0.5, error=TRACEBACK),
        TrialStarted(S, "x", "dkd T=2.0 beta=4.1 confidence minilm+minilm_cnn", epochs=5),
        TrialReported(S, "x", 3, {"val_f1_macro": 0.6}),
    )
    frame = stage.frame()
    assert max(map(len, frame.splitlines())) <= width
    for text in ("news", "students", "12/60", "confirm", "waiting", "3/5", "0.6000", "0.7123"):
        assert text in frame
    assert "NonFiniteLoss" in frame
    assert "left" in frame


def test_more_running_trials_than_rows() -> None:
    stage = Stage80("quiet")
    stage.play(*SWEEP, *(TrialStarted(S, str(n), f"trial {n}") for n in range(200)))
    frame = stage.frame()
    assert len(frame.splitlines()) <= 30
    assert re.search(r"and \d+ more", frame)


def test_the_view_follows_mlflow_and_the_end() -> None:
    stage = Stage80("quiet")
    stage.play(*SWEEP)
    assert "up to date" in stage.frame()
    stage.shipping.behind = 3
    assert "3 events on their way" in stage.frame()
    stage.shipping.last_error = "it does not answer"
    assert "3 events behind: it does not answer" in stage.frame()
    stage.play(61.0, SweepFinished(TrialState.COMPLETE))
    assert "complete after 61 s" in stage.frame()


def test_a_terminal_gets_the_live_view_and_is_given_back() -> None:
    stage = Stage80("auto", terminal=True)
    text = "\n".join(
        stage.play(*SWEEP, Notice("warning", "mind the gap"), SweepFinished(TrialState.COMPLETE))
    )
    assert "mind the gap" in text
    assert "complete after" in text
    assert text.rstrip().endswith("\x1b[?25h"), "the cursor is shown again"
    stage.console.close()


def test_no_color_is_honoured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    stage = Stage80("quiet", terminal=True)
    stage.play(*SWEEP)
    assert not re.search(r"\x1b\[[0-9;]*3[0-9]", stage.frame())


def test_by_default_everything_goes_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    console = Console("lines")
    console.observe(SweepStarted("news"))
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "[sweep news] started\n"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0 s"), (8.24, "8.2 s"), (9.96, "10 s"), (89, "89 s"), (90, "2 min"),
     (240, "4 min"), (3599, "1 h 00 min"), (7500, "2 h 05 min")],
)  # fmt: skip
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_clock_times_and_reasons() -> None:
    assert [clock_time(s) for s in (0, 247.9, 3847)] == ["0:00", "4:07", "1:04:07"]
    assert reason(TRACEBACK) == "NonFiniteLoss: NaN at epoch 2"
    assert reason("oom\nTraceback: long story") == "oom"
    assert reason(None) == reason(" \n") == "unknown reason"
    assert len(reason("x" * 500)) == 160
