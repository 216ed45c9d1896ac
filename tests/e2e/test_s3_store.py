"""A whole sweep whose artifacts are behind a URL, in a process that speaks S3."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orchestrator.home import Home

pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.timeout(600)]


def test_a_sweep_keeps_its_artifacts_in_s3(
    orchestrator: Callable[..., Any], s3: str, tmp_path: Path
) -> None:
    home, cache = tmp_path / "home", Path(os.environ["ORCHESTRATOR_CACHE"])
    sweep = ["sweep", "smoke", "--home", home, "--cpus", "2", "--json"]
    done = orchestrator(*sweep, "--store", s3)
    assert done.returncode == 0, done.stderr
    first = json.loads(done.stdout)
    assert not (home / "store").exists()
    store = Home(home).store
    assert store.address == s3
    assert store.keys("teacher") and store.keys("student") and store.keys("confirm")
    assert store.remote is not None
    assert store.remote.names("leases") == store.remote.names("checkpoints") == []
    secrets = (os.environ["AWS_SECRET_ACCESS_KEY"], os.environ["AWS_ENDPOINT_URL"])
    written = [path for path in home.rglob("*") if path.is_file()]
    assert not [path for path in written if any(s.encode() in path.read_bytes() for s in secrets)]

    shutil.rmtree(cache)  # as another node, which has fetched nothing yet
    again = orchestrator(*sweep)
    assert again.returncode == 0, again.stderr
    second = json.loads(again.stdout)
    assert second["confirm"] == first["confirm"]
    assert second["verdict"] == first["verdict"]

    shutil.rmtree(cache)
    exported = orchestrator("export", "--home", home, "--output", tmp_path / "student")
    assert exported.returncode == 0, exported.stderr
    assert (tmp_path / "student" / "tokenizer.json").is_file()
