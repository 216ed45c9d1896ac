from __future__ import annotations

import io
from typing import Any

import pandas as pd
import pytest
from rich.console import Console

from orchestrator.report import naming
from orchestrator.report.build import build_report
from orchestrator.report.tables import to_csv, to_description, to_markdown
from orchestrator.report.text import render_text

Sweep = Any  # the builder of conftest.py, which cannot be imported


def printed(sweep: Sweep, width: int, **data: Any) -> list[str]:
    console = Console(width=width, file=io.StringIO(), color_system=None)
    render_text(build_report(sweep.record(**data), sweep.store), console)
    assert isinstance(console.file, io.StringIO)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


def test_text_line_by_line(finished: Sweep) -> None:
    lines = printed(finished, 100, tfidf={"val_f1_macro": 0.77, "test_f1_macro": 0.76})
    assert lines[1].startswith("│ BEATS: kd T=4 · average · bert beats the same student without a")
    table = lines.index("Students by dev macro F1 (6 complete, 1 pruned)")
    assert lines[table + 4 : table + 6] == [
        " 1   kd T=4 · average · bert ◆                           90.0          2 M   8 MB   5.0 s",
        " 2   mse_logits · entropy · bert+weak                    88.0          2 M   8 MB   5.0 s",
    ]
    assert (
        " chosen         kd T=4 · average · bert                3   89.0 ± 0.0   90.0 ± 0.0"
        in lines
    )
    assert " TF-IDF floor   77.0   76.0" in lines
    assert lines[-4:] == [
        "Next",
        "  plots  orchestrator report news --format html --output news.html",
        "  runs   orchestrator ui",
        "  ship   orchestrator export news --output news-student",
    ]


def test_text_fits_eighty_columns(finished: Sweep) -> None:
    assert max(len(line) for line in printed(finished, 80)) <= 80


def test_text_of_an_empty_sweep(sweep: Sweep) -> None:
    lines = printed(sweep, 80)
    assert "INCONCLUSIVE" in lines[1]


def test_csv_loads_into_pandas(finished: Sweep) -> None:
    report = build_report(finished.record(), finished.store)
    frame = pd.read_csv(io.StringIO(to_csv(report)))
    assert len(frame) == 7
    assert frame["metrics.val_f1_macro"].iloc[0] == 0.90
    assert frame["params.loss.temperature"].iloc[0] == 4.0
    assert frame["state"].tolist() == ["complete"] * 6 + ["pruned"]
    assert frame["teachers"].iloc[1] == "bert+weak"
    assert frame["rank"].isna().tolist() == [False] * 6 + [True]


def test_markdown(finished: Sweep) -> None:
    text = to_markdown(build_report(finished.record(), finished.store))
    assert text.startswith("# news\n\n**BEATS**: kd T=4")
    assert "| 2 | mse\\_logits · entropy · bert+weak | search | 88.0 | 2 M | 8 MB | 5.0 s |" in text
    assert "## F1 by class (test)" in text
    for block in text.split("\n\n"):
        rows = [line for line in block.splitlines() if line.startswith("| ")]
        assert len({row.replace("\\|", "").count("|") for row in rows}) <= 1


def test_the_description_of_a_run_fits_and_begins_with_the_verdict(finished: Sweep) -> None:
    report = build_report(finished.record(), finished.store)
    text = to_description(report)
    assert text.startswith("**BEATS**: kd T=4")
    assert "## Confirmed over seeds" in text and "## Students" in text
    assert text.endswith("`report/report.html` among the artifacts.")
    short = to_description(report, len(text) - 1)
    assert "## Students" in short and "## Teachers" not in short
    assert short.startswith("**BEATS**") and short.endswith("among the artifacts.")
    assert len(to_description(report, 100)) == 100


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (None, "-"),
        (0.84, "0.8 s"),
        (42.4, "42 s"),
        (59.7, "1 min 00 s"),
        (200, "3 min 20 s"),
        (7500, "2 h 05 min"),
    ],
)
def test_duration(seconds: float | None, expected: str) -> None:
    assert naming.duration(seconds) == expected


def test_numbers() -> None:
    assert naming.count(2128258) == "2.13 M"
    assert naming.size(8513032) == "8.51 MB"
    assert naming.size(512) == "512 B"
    assert naming.points(0.032) == "+3.2"
    assert naming.points(-0.0001) == "+0.0"
    assert naming.points(-0.012) == "-1.2"


def test_metric_words() -> None:
    assert naming.describe_metric("val_f1_macro") == "dev macro F1"
    assert naming.describe_metric("test_accuracy") == "test accuracy"
    assert naming.decision_metric("val_loss") == "f1_macro"
    assert naming.decision_metric("val_accuracy") == "accuracy"
