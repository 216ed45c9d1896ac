"""Disks that fill up or become read-only, and artifacts that are damaged, on real mounts."""

import errno
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator.records import TrialState
from orchestrator.tracking.events import Notice

pytestmark = [pytest.mark.faults, pytest.mark.ray, pytest.mark.timeout(900)]
SLOW = {"name": "stand_ins:Slow", "seconds": 0.15}
# Preflight wants 500 MB of free space.
MEGABYTES = 640


@pytest.fixture
def mounted() -> Iterator[Callable[[Path], Path]]:
    """Mount a small file system in memory over a folder."""
    folders: list[Path] = []

    def mount(folder: Path) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        command = ["mount", "-t", "tmpfs", "-o", f"size={MEGABYTES}m", "tmpfs", str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"mounting is not permitted here: {done.stderr.strip()}")
        folders.append(folder)
        return folder

    yield mount
    for folder in folders:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(folder: Path) -> Path:
    """Take all the space there is with one file."""
    ballast = folder / "ballast"
    descriptor = os.open(ballast, os.O_WRONLY | os.O_CREAT)
    block = bytes(2**16)
    try:
        while block:
            try:
                os.write(descriptor, block)
            except OSError as error:
                assert error.errno == errno.ENOSPC
                block = block[: len(block) // 2]
    finally:
        os.close(descriptor)
    return ballast


def expect_one_sentence(run: Any, *words: str) -> str:
    """Check that a sweep ended with exit code 3 and one sentence that tells how to mend it."""
    assert run.wait() == 3, run.text()
    text = str(run.text())
    assert "Traceback" not in text, text
    errors = [line for line in text.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, text
    for word in words:
        assert word in errors[0]
    return errors[0]


@pytest.mark.usefixtures("shared_ray")
def test_a_disk_that_fills_up_midway(
    fresh: Any, figure: Any, mounted: Callable[[Path], Path]
) -> None:
    """Everything lies on it: the store, the ledger, sweep.json, the outbox, MLflow's runs."""
    disk = mounted(fresh.home)
    config = fresh.config(**{"student.loss": SLOW, "search.trials": 6})
    run = fresh.start(config)
    run.wait_until(fresh.sign_of_life())
    ballast = fill(disk)
    error = expect_one_sentence(run, "start the same command again")
    before = sum(fresh.trained().values())
    ballast.unlink()
    assert not list((fresh.home / "store" / "tmp").glob("*"))
    fresh.sweep(config)
    counts = fresh.expect_whole(6)
    figure(
        epochs_before=before,
        epochs=counts.epochs,
        twice=counts.twice,
        points=counts.points,
        doubled=counts.doubled,
        error=f"'{error[:90]}...'",
    )


@pytest.mark.usefixtures("shared_ray")
def test_a_store_that_becomes_read_only(
    bench: Any, figure: Any, mounted: Callable[[Path], Path], tmp_path: Path
) -> None:
    store = bench.home / "store"
    aside = store.rename(tmp_path / "aside")
    mounted(store)
    subprocess.run(["cp", "-a", f"{aside}/.", str(store)], check=True)
    config = bench.config(**{"student.loss": SLOW})
    run = bench.start(config)
    run.wait_until(bench.sign_of_life())
    for _ in range(200):  # not while a file is open for writing
        if not subprocess.run(["mount", "-o", "remount,ro", str(store)], check=False).returncode:
            break
        time.sleep(0.02)
    error = expect_one_sentence(run, "Read-only file system", "start the same command again")
    again = bench.start(config)
    expect_one_sentence(again, "start the same command again")
    subprocess.run(["mount", "-o", "remount,rw", str(store)], check=True)
    bench.sweep(config)
    counts = bench.expect_whole(4)
    figure(trials=counts.trials, twice=counts.twice, error=f"'{error[:90]}...'")


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)


@pytest.mark.brief
@pytest.mark.usefixtures("shared_ray")
def test_damaged_artifacts_are_found_and_made_again(bench: Any, figure: Any) -> None:
    config = bench.config()
    bench.sweep(config)
    store = bench.home / "store"
    kinds = ("teacher", "outputs", "encoded", "data", "tokenizer")
    files = {kind: next(_content(store / kind)) for kind in kinds}
    for kind in ("teacher", "outputs", "tokenizer"):
        flip(files[kind])
    files["encoded"].write_bytes(files["encoded"].read_bytes()[:-7])
    manifest = files["data"].parent / "manifest.json"
    foreign = manifest.read_text().replace('"schema": 1', '"schema": 99')
    assert foreign != manifest.read_text()
    manifest.write_text(foreign)
    before = {r.key: r.metrics["val_f1_macro"] for r in bench.results()}
    bench.sweep(bench.config(**{"search.trials": 5}))
    warned = [e.text for e in bench.events(Notice) if "is damaged" in e.text]
    aside = {p.name.partition("-")[0] for p in (store / "set-aside").iterdir()}
    results = bench.results()
    assert aside == set(kinds)
    assert len(results) == 5
    assert all(r.state is TrialState.COMPLETE for r in results)
    assert {r.key: r.metrics["val_f1_macro"] for r in results}.items() >= before.items()
    assert len(warned) == len(kinds)
    figure(damaged=len(kinds), set_aside=len(aside), warned=len(warned), students=len(results))


def _content(folder: Path) -> Iterator[Path]:
    """Yield the biggest file of each artifact."""
    for manifest in folder.rglob("manifest.json"):
        files = [p for p in manifest.parent.rglob("*") if p.is_file() and p != manifest]
        yield max(files, key=lambda file: file.stat().st_size)


def test_a_checkpoint_cut_off_by_a_power_cut(bench: Any, figure: Any) -> None:
    """It is not trusted: the trial begins anew, and nothing is told twice to MLflow."""
    config = bench.config(**{"student.loss": SLOW})
    run = bench.start(config)
    run.wait_until(bench.sign_of_life())
    run.kill(signal.SIGKILL)
    time.sleep(3)  # its workers end themselves
    checkpoints = list((bench.home / "store" / "checkpoints").rglob("state.safetensors"))
    for path in checkpoints:
        path.write_bytes(path.read_bytes()[:-100])
    bench.sweep(config)
    counts = bench.expect_whole(4)
    figure(cut=len(checkpoints), epochs=counts.epochs, twice=counts.twice, doubled=counts.doubled)
    assert len(checkpoints) > 0
