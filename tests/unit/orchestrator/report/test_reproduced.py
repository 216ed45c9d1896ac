"""The tables of a reproduction, from lines made by hand."""

import io
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from rich.console import Console

from orchestrator import show
from orchestrator.records import TrialState
from orchestrator.report.arms import ArmRow
from orchestrator.report.parts import Comparison, Interval, Spread, TeacherRow, Verdict
from orchestrator.report.reproduced import Grid, Line, Reproduction, tables, to_markdown

COST = {"parameters": 2.1e6, "model_bytes": 8.5e6, "epoch_seconds": 3.0}


def arm(name: str, score: float, **changes: Any) -> Line:
    metrics = {"test_accuracy": score, "test_f1_macro": score - 0.01, **COST}
    metrics |= {"test_f1_micro": score, "test_f1_weighted": score + 0.01}
    spreads = {key: Spread(value, 0.004, 3) for key, value in metrics.items()}
    values = {"curve": (score - 0.2, score), **changes}
    row = ArmRow(name, "confirm", spreads, **values)
    return Line(name, "student", score, None, arm=row, epoch_ratio=0.05)


def teacher(name: str, coarse: bool = False) -> Line:
    metrics = {"test_accuracy": 0.95, "test_f1_macro": 0.94, **COST, "epoch_seconds": 60.0}
    row = TeacherRow(name, "key", TrialState.COMPLETE, metrics, 100.0, coarse=coarse)
    return Line(name, "teacher", None if coarse else 0.95, 0.9407, teacher=row, epoch_ratio=1.0)


def reproduction(*lines: Line) -> Reproduction:
    return Reproduction(
        *("news", "news-fast", True, "test_accuracy", "a paper", ("other data",)),
        lines,
        ("all pairs stand.",),
        "strong",
    )


def grid(found: Reproduction, title: str) -> Grid:
    (only,) = (grid for grid in tables(found) if title in grid.title)
    return only


def rows(found: Reproduction, title: str) -> Mapping[str, Mapping[str, str]]:
    table = grid(found, title)
    return {row[0]: dict(zip(table.header, row, strict=True)) for row in table.rows}


def test_scores_hold_every_f1() -> None:
    found = reproduction(teacher("strong"), replace(arm("plain", 0.8), published=0.87))
    scores = rows(found, "test accuracy")
    assert scores["plain"] == {
        "": "plain",
        "ours": "80.0 ± 0.4",
        "paper": "87.00",
        "macro F1": "79.0",
        "micro F1": "80.0",
        "weighted F1": "81.0",
    }
    assert scores["strong (teacher)"]["macro F1"] == "94.0"


def test_gains_are_over_the_plain_student() -> None:
    lines = (replace(arm("plain", 0.8), published=0.87), replace(arm("kd", 0.83), published=0.88))
    scores = rows(reproduction(*lines), "test accuracy")
    assert scores["kd"]["gain"] == "+3.00"
    assert scores["kd"]["paper gain"] == "+1.00"
    assert scores["plain"]["gain"] == "-"


def test_accuracy_is_shown_where_f1_is_compared() -> None:
    found = replace(reproduction(arm("plain", 0.8)), metric="test_f1_macro")
    scores = rows(found, "test macro F1")
    assert scores["plain"]["accuracy"] == "80.0"
    assert "macro F1" not in scores["plain"]


def test_superclass_scores_do_not_stand_beside_class_scores() -> None:
    scores = rows(reproduction(teacher("coarse", coarse=True), arm("plain", 0.8)), "test accuracy")
    assert scores["coarse (teacher)"]["macro F1"] == "-"


def test_cost_is_relative_to_the_teacher() -> None:
    cost = rows(reproduction(teacher("strong"), arm("plain", 0.8)), "what it costs")
    assert cost["plain"]["of strong's"] == "0.05"
    assert cost["plain"]["weights"] == "8.5 MB"
    assert cost["strong (teacher)"]["s/epoch"] == "60.0"


def test_paired_tests_and_their_verdicts() -> None:
    interval = Interval(0.03, 0.011, 0.049, 0.95, 3, 600)
    sure = Comparison("plain", Verdict.BEATS, "", "accuracy", "test", interval)
    unsure = replace(sure, verdict=Verdict.INCONCLUSIVE)
    found = reproduction(arm("kd", 0.8, against_plain=sure, against_average=unsure))
    assert rows(found, "paired")["kd"] == {
        "": "kd",
        "over plain": "+1.1 to +4.9 BEATS",
        "over average": "+1.1 to +4.9",
    }


def test_curves_of_many_epochs_are_thinned_out_but_keep_both_ends() -> None:
    curve = tuple(number / 100 for number in range(30))
    found = reproduction(replace(arm("kd", 0.8, curve=curve), epochs_to_plain=7))
    learning = grid(found, "by epoch")
    assert learning.header[:3] == ("", "epochs to plain's best", "1")
    assert learning.header[-1] == "30"
    assert len(learning.header) == 12
    assert learning.rows[0][1:3] == ("7", "0.0")
    assert learning.rows[0][-1] == "29.0"


def test_recall_and_what_was_kept() -> None:
    found = reproduction(arm("scheme5", 0.8, recall={"fake": 0.9, "true": 0.7}, retention=0.85))
    assert rows(found, "recall")["scheme5"] == {
        "": "scheme5",
        "fake": "90.0",
        "true": "70.0",
        "kept": "85.0",
    }


def test_selection_by_difficulty() -> None:
    levels = {"easy": {"a": 0.9, "b": 0.1}, "medium": {"a": 0.5, "b": 0.5}, "hard": {"a": 0.2}}
    found = reproduction(
        arm("rl", 0.8, selection={"a": 0.6, "b": 0.3}, by_difficulty=levels), arm("plain", 0.7)
    )
    selected = grid(found, "how often a teacher is selected")
    assert selected.header == ("", "all", "easy", "medium", "hard")
    assert selected.rows == (
        ("rl: a", "0.60", "0.90", "0.50", "0.20"),
        ("rl: b", "0.30", "0.10", "0.50", "-"),
    )


def test_tables_without_content_are_left_out() -> None:
    titles = [grid.title for grid in tables(reproduction(arm("plain", 0.8, curve=())))]
    assert len(titles) == 2
    assert not [title for title in titles if "selected" in title or "by epoch" in title]


def test_the_text_is_narrow_enough_for_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    interval = Interval(0.03, 0.011, 0.049, 0.95, 3, 600)
    test = Comparison("plain", Verdict.NO_BEATS, "", "accuracy", "test", interval)
    curve = tuple(0.5 + number / 100 for number in range(30))
    busy = arm(
        *("shuffled_marginal", 0.8123), against_plain=test, against_average=test, curve=curve,
        recall={"deceptive": 0.9, "truthful": 0.8}, retention=0.9, selection={"shallow": 0.5},
        by_difficulty={"easy": {"shallow": 0.5}, "medium": {"shallow": 0.4}},
    )  # fmt: skip
    busy = replace(busy, published=0.8937, epochs_to_plain=12)
    lines = (teacher("strong"), replace(arm("plain", 0.8), published=0.87), busy)
    buffer = io.StringIO()
    monkeypatch.setattr(show, "Console", lambda **_: Console(file=buffer, width=110))
    show.show_reproduction(reproduction(*lines))
    shown = buffer.getvalue().splitlines()
    # A row of each of the six tables, none of them broken.
    assert sum(line.startswith("shuffled_marginal") for line in shown) == 6
    assert max(map(len, shown)) <= 110
    header = next(line for line in shown if "epochs to plain's best" in line)
    assert header.rstrip().endswith("30")


def test_markdown_holds_the_same_tables() -> None:
    text = to_markdown(reproduction(teacher("strong"), arm("plain", 0.8)))
    assert text.startswith("# news (fast form)\n\nPublished: a paper.")
    assert "| plain | 80.0 ± 0.4 |" in text
    assert "## Dev macro F1 by epoch" in text
    assert "- other data" in text
