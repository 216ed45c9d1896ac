"""Make the pictures of the documentation from a finished sweep.

    python docs/make_pictures.py --home .orchestrator --sweep news

Opens the report as a file and the MLflow UI as ``orchestrator ui`` serves it, both in a headless
Chromium, and writes one small PNG for each step of the walk in pictures.md. Needs the extra
``dev`` and a Chromium on the path.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mlflow import MlflowClient
from mlflow.entities import Run
from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

from orchestrator.history import load_report
from orchestrator.home import Home
from orchestrator.report.html import to_html
from orchestrator.tracking.address import resolve_uri

MOST_BYTES = 150_000
UI_SIZE, DESKTOP, PHONE = (1440, 900), (1280, 900), (390, 844)
COMPARED = 12
AXES = ("alpha", "loss", "weighting", "teachers")
# The assistant's panel opens by itself and covers a third of the page.
QUIET = """
localStorage.setItem("mlflow.assistant.fab.autoOpenedOnFirstLoad_v1", "true");
localStorage.setItem("mlflow.assistant.panelOpen_v1", "false");
"""
# Where the files lie on the machine that made the pictures is nobody's business.
WITHOUT_PATHS = r"""() => {
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const node = walk.currentNode;
    node.nodeValue = node.nodeValue.replace(/(^|[^\w])(file:\/\/)?\/[^\s,]*\//g, "$1");
  }
}"""
START_SECONDS, LOAD_MS, DRAW_MS = 300, 300_000, 4_000


def main() -> None:
    """Make all pictures."""
    parser = argparse.ArgumentParser(description="Make the pictures of the documentation.")
    parser.add_argument("--home", type=Path, help="where the sweep was run")
    parser.add_argument("--sweep", help="its name; the latest if not given")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "pictures")
    given = parser.parse_args()
    home = Home(given.home)
    name = home.find_sweep(given.sweep)
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        sys.exit("needs Chromium (Debian: apt-get install chromium)")
    given.output.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        take_report(browser, home, name, given.output)
        with interface(home, name) as url:
            take_interface(browser, url, runs_of(home, name), given.output)
        browser.close()


def take_report(browser: Browser, home: Home, name: str, output: Path) -> None:
    """Take the report on a desktop and on a phone, each in light and dark."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "report.html"
        file.write_text(to_html(load_report(home, name)), encoding="utf-8")
        for kind, size in (("desktop", DESKTOP), ("phone", PHONE)):
            for scheme in ("light", "dark"):
                page = open_page(browser, size, scheme)
                page.goto(file.as_uri())
                page.wait_for_selector(".js-plotly-plot")
                page.wait_for_timeout(DRAW_MS / 2)
                save(page, output / f"report-{kind}-{scheme}.png")
                if scheme == "light":
                    page.locator("h2", has_text="Pictures").scroll_into_view_if_needed()
                    page.evaluate("document.querySelector('.grid').scrollIntoView()")
                    save(page, output / f"report-{kind}-plots.png")
                page.context.close()


@dataclass(frozen=True)
class Runs:
    """The runs of a sweep that are shown: its own, and complete students, the best first."""

    experiment: str
    parent: Run
    students: list[Run]


def runs_of(home: Home, name: str) -> Runs:
    """Find the runs of a sweep in its home's database."""
    config = home.read_state(name)["config"]
    client = MlflowClient(resolve_uri(home.path, config["tracking"]["uri"]))
    experiment = client.get_experiment_by_name(config["tracking"]["experiment"] or name)
    if experiment is None:
        sys.exit(f"MLflow does not know {name}; run 'orchestrator sync {name}' first")
    found = [experiment.experiment_id]
    (parent,) = client.search_runs(found, f"tags.sweep = '{name}' and tags.stage = 'sweep'")
    wanted = f"tags.sweep = '{name}' and tags.stage = 'students' and tags.state = 'complete'"
    order = ["metrics.kept_val_f1_macro DESC"]
    students = client.search_runs(found, wanted, max_results=COMPARED, order_by=order)
    return Runs(experiment.experiment_id, parent, list(students))


def take_interface(browser: Browser, url: str, runs: Runs, output: Path) -> None:
    """Walk through the MLflow UI: experiment, comparison, the sweep's own run, its artifacts."""
    page = open_page(browser, UI_SIZE, "light")
    page.add_init_script(QUIET)
    ids = [run.info.run_id for run in runs.students]
    query = {"runs": json.dumps(ids), "experiments": json.dumps([runs.experiment])}
    parent = f"experiments/{runs.experiment}/runs/{runs.parent.info.run_id}"
    steps: list[tuple[str, str, Callable[[Page], None]]] = [
        ("experiment", f"experiments/{runs.experiment}/runs", open_children),
        ("compare-parallel", f"compare-runs?{urllib.parse.urlencode(query)}", choose_axes),
        ("compare-students", f"compare-runs?{urllib.parse.urlencode(query)}", show_details),
        ("sweep-run", parent, show_run),
        ("artifacts", f"{parent}/artifacts", open_report),
    ]
    for name, fragment, act in steps:
        page.goto("about:blank")  # a change of the fragment alone would not load the page
        page.goto(f"{url}/#/{fragment}", wait_until="domcontentloaded")
        act(page)
        page.wait_for_timeout(DRAW_MS)
        page.evaluate(WITHOUT_PATHS)
        save(page, output / f"mlflow-{name}.png")
    page.context.close()


def show_run(page: Page) -> None:
    """Wait for the sweep's own run, with its description, data and trials."""
    page.get_by_text("About this run").first.wait_for()
    page.get_by_text("Load more").first.wait_for()


def open_children(page: Page) -> None:
    """Show the trials below the sweep."""
    page.locator("[role=gridcell] button").first.click()


def choose_axes(page: Page) -> None:
    """Draw the searched parameters against the score instead of the training loss."""
    page.locator(".parcoords").first.wait_for(state="attached")
    page.get_by_role("button", name="Clear All").click()
    for place, names in enumerate((AXES, ("kept_val_f1_macro",))):
        page.get_by_role("combobox").nth(place).click(force=True)
        page.wait_for_timeout(DRAW_MS / 8)
        for name in names:
            pick(page, name)
        page.keyboard.press("Escape")


def pick(page: Page, name: str) -> None:
    """Choose from the open list, which holds only what can be seen of it."""
    entry = page.locator(f'[class*="select-item-option"][title="{name}"]:visible').first
    listed = page.locator('[class*="select-item-option"]:visible').first
    for turn in range(40):
        if entry.count():
            entry.click()
            return
        listed.hover()
        page.mouse.wheel(0, 120 if turn < 20 else -120)
        page.wait_for_timeout(100)
    sys.exit(f"the comparison offers no {name}")


def show_details(page: Page) -> None:
    """Scroll to the table in which each student is a column."""
    page.get_by_text("Run Name:", exact=True).first.evaluate("(e) => e.scrollIntoView()")


def open_report(page: Page) -> None:
    """Open the report that lies with the sweep's run."""
    page.get_by_text("report", exact=True).first.click()
    page.get_by_text("report.html", exact=True).first.click()


def open_page(browser: Browser, size: tuple[int, int], scheme: Literal["light", "dark"]) -> Page:
    """Open an empty page of that size and colour scheme."""
    viewport = {"width": size[0], "height": size[1]}
    context = browser.new_context(viewport=viewport, color_scheme=scheme)  # type: ignore[arg-type]
    context.set_default_timeout(LOAD_MS)
    return context.new_page()


def save(page: Page, path: Path) -> None:
    """Write what the page shows, with as many colours as the size allows."""
    picture = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    for colours in (256, 128, 64, 32):
        small = picture.quantize(colours, dither=Image.Dither.NONE)
        small.save(path, optimize=True)
        if path.stat().st_size <= MOST_BYTES:
            return
    sys.exit(f"{path.name} is bigger than {MOST_BYTES} bytes")


@contextmanager
def interface(home: Home, name: str) -> Iterator[str]:
    """Run ``orchestrator ui`` on a free port and yield its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "orchestrator", "ui", name, "--home", str(home.path)]
    # A group of its own: the UI is a server with workers, and all of them must end.
    process = subprocess.Popen(
        [*command, "--port", str(port)],
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    url = f"http://127.0.0.1:{port}"
    try:
        wait_for(url, process)
        yield url
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(timeout=30)


def wait_for(url: str, process: subprocess.Popen[bytes]) -> None:
    """Wait until the UI answers."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except (urllib.error.URLError, TimeoutError):
            time.sleep(0.5)
    sys.exit(f"{url} does not answer")


if __name__ == "__main__":
    main()
