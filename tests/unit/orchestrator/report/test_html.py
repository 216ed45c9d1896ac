from __future__ import annotations

import dataclasses
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
import pytest

from orchestrator.report import html, html_tables
from orchestrator.report.build import build_report
from orchestrator.report.figure import Figure
from orchestrator.report.importance import importance
from orchestrator.report.plots_models import model_figures
from orchestrator.report.plots_search import search_figures

Sweep = Any  # the builder of conftest.py, which cannot be imported

EXPECTED = {
    "pareto",
    "progress",
    "hypervolume",
    "subsets",
    "parallel",
    "slice-loss",
    "slice-loss.temperature",
    "slice-teachers",
    "slice-weighting",
    "intervals",
    "classes",
    "confusion",
    "confusion-change",
    "time",
}


def figures_of(page: str) -> list[dict[str, Any]]:
    found = re.search(r'<script type="application/json" id="figures">(.*?)</script>', page, re.S)
    assert found is not None
    figures: list[dict[str, Any]] = json.loads(found.group(1))
    return figures


def drawn(figure: Figure) -> go.Figure:
    """Let plotly check every property; the theme's names stand in for colours."""
    text = json.dumps({"data": figure.data, "layout": figure.layout})
    text = text.replace('"theme:sequential"', '"Blues"').replace('"theme:diverging"', '"RdBu"')
    return go.Figure(json.loads(re.sub(r'"theme:\w+"', '"#123456"', text)))


def test_every_figure_is_valid_plotly(finished: Sweep) -> None:
    report = build_report(finished.record(), finished.store)
    figures = search_figures(report, importance(report)) + model_figures(report)
    assert {figure.name for figure in figures} == EXPECTED
    for figure in figures:
        assert drawn(figure).data


def test_page_holds_everything_and_fetches_nothing(finished: Sweep) -> None:
    page = html.to_html(build_report(finished.record(tfidf={"val_f1_macro": 0.7}), finished.store))
    assert "default-src 'none'" in page
    head = page[: page.index('id="figures"')]
    assert re.search(r"<(link|img|iframe)|src=|@import|url\(", head) is None
    assert {figure["name"] for figure in figures_of(page)} == EXPECTED
    for name in EXPECTED:
        assert f'id="plot-{name}"' in page
    assert '<span class="badge beats">BEATS</span>' in page
    assert "TF-IDF floor" in page
    assert "<title>news: BEATS</title>" in page


def test_colours_are_known_in_both_schemes(finished: Sweep) -> None:
    page = html.to_html(build_report(finished.record(), finished.store))
    used = set(re.findall(r'"theme:(\w+)"', json.dumps(figures_of(page))))
    light, dark = page.split("prefers-color-scheme: dark", 1)
    for name in used - {"sequential", "diverging"}:
        assert f"--{name}:" in light
        assert f"--{name}:" in dark.split("</style>")[0]


def test_hostile_names_stay_text(finished: Sweep) -> None:
    evil = "</script><b>&"
    record = finished.record(classes=[evil, "money", "world"])
    page = html.to_html(build_report(record, finished.store))
    assert evil not in page
    rows = next(item for item in figures_of(page) if item["name"] == "classes")
    assert evil in rows["data"][0]["y"]


def test_empty_sweep_is_a_page_too(sweep: Sweep) -> None:
    page = html.to_html(build_report(sweep.record(), sweep.store))
    assert figures_of(page) == []
    assert '<span class="badge inconclusive">INCONCLUSIVE</span>' in page


def test_many_classes_have_no_numbers_in_cells(finished: Sweep) -> None:
    report = build_report(finished.record(), finished.store)
    row = report.diagnosis.classes[0]
    many = dataclasses.replace(report.diagnosis, classes=(row,) * 30)
    figures = model_figures(dataclasses.replace(report, diagnosis=many))
    matrix = next(item for item in figures if item.name == "confusion")
    assert "texttemplate" not in matrix.data[0]


def test_a_search_for_speed_is_drawn_against_latency(finished: Sweep) -> None:
    record = finished.record()
    trials = [
        dataclasses.replace(t, metrics={**t.metrics, "latency_ms": 1.0 + place % 3})
        for place, t in enumerate(record.trials)
    ]
    objectives = {"val_f1_macro": "max", "latency_ms": "min"}
    config = {"search": {"objectives": objectives}}
    report = build_report(
        dataclasses.replace(record, trials=tuple(trials), config=config), finished.store
    )
    figures = {figure.name: figure for figure in search_figures(report, None)}
    assert figures["pareto"].title == "Score against latency"
    assert figures["pareto"].layout["xaxis"]["title"]["text"] == "latency, ms"
    assert "by latency that is dominated" in figures["hypervolume"].caption
    assert drawn(figures["pareto"]).data and drawn(figures["hypervolume"]).data
    assert '<th class="n">latency, ms</th>' in html.to_html(report)


def test_parameters_that_show_nothing_are_not_drawn(finished: Sweep) -> None:
    report = build_report(finished.record(), finished.store)
    # alpha differs between a complete and a stopped student only.
    assert any("alpha" in row.params for row in report.students)
    assert "slice-alpha" not in {figure.name for figure in search_figures(report, None)}


def test_numbers_stay_with_their_signs() -> None:
    text = "p < 0.001, alpha = 0.05 (95 % interval)"
    assert html_tables.prose(text) == (
        "p\u00a0&lt;\u00a00.001, alpha\u00a0=\u00a00.05 (95\u00a0% interval)"
    )


@pytest.mark.browser
@pytest.mark.parametrize("width", [390, 1280])
def test_chromium_draws_every_figure(finished: Sweep, tmp_path: Path, width: int) -> None:
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("needs Chromium")
    page = tmp_path / "report.html"
    page.write_text(html.to_html(build_report(finished.record(), finished.store)), "utf-8")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
    flags += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
    flags += [f"--user-data-dir={tmp_path / 'profile'}", f"--window-size={width},2000"]
    flags += ["--enable-unsafe-swiftshader", "--virtual-time-budget=5000", "--dump-dom"]
    done = subprocess.run(
        [chromium, *flags, page.as_uri()], capture_output=True, text=True, timeout=55, check=True
    )
    plots = re.findall(r'<div id="plot-([^"]+)"[^>]*class="js-plotly-plot"', done.stdout)
    assert set(plots) == EXPECTED
