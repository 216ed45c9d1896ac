"""``orchestrator reproduce`` from the command line, on data and models of seconds."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from search_spaces.loader import preset_path

CONFIG = f"""
name: tiny
data:
  path: {preset_path("smoke").with_name("smoke.csv")}
  dev: 80
  test: 80
  labelled: 120
  max_length: 16
teachers:
  - name: one
    model: {{name: transformer, layers: 1, hidden: 16, heads: 2, ffn: 32}}
    epochs: 9
    lr: 5.0e-3
    batch_size: 16
student:
  model: {{name: textcnn, filters: 8, kernels: [1, 2], embedding_dim: 8}}
  epochs: 2
  lr: 5.0e-3
arms:
  - {{name: dkd, point: {{loss: dkd}}}}
  - {{name: joint, scheme: coupled, point: {{teachers: [one]}}}}
  - {{name: both, members: [dkd, joint]}}
confirm: {{seeds: 2}}
published:
  source: "nobody, 2026"
  rows: {{one: 95.0, plain: 80.0, dkd: 90.0, both: 91.0}}
fast: {{teachers.0.epochs: 3}}
"""


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(300)
def test_ours_beside_the_published(tmp_path: Path, orchestrator: Callable[..., Any]) -> None:
    (tmp_path / "tiny.yaml").write_text(CONFIG)
    options = ("tiny.yaml", "--fast", "--home", tmp_path / "home", "--cpus", "1")
    done = orchestrator("reproduce", *options, "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["sweep"] == "tiny-fast"
    ours = {line["name"]: line["ours"] for line in document["lines"]}
    assert set(ours) == {"one", "plain", "best_teacher", "average", "dkd", "joint", "both"}
    assert all(0 < value <= 1 for value in ours.values())
    assert document["differences"]
    beside = tmp_path / "home" / "sweeps" / "tiny-fast" / "reproduction.md"
    assert "nobody, 2026" in beside.read_text()
    again = orchestrator("reproduce", *options, cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert "where our ranking differs" in again.stdout
