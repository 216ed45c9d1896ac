import json
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.leftovers import claim, release, remove_leftovers, scratch_folder
from trainables.process import Process


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def session(root: Path, name: str, owner: Process | None) -> Path:
    folder = root / name
    folder.mkdir(parents=True)
    (folder / "logs").mkdir()
    if owner is not None:
        (folder / "orchestrator-owner.json").write_text(json.dumps(owner.to_dict()))
    return folder


def test_only_what_the_dead_have_claimed_is_removed(tmp_path: Path) -> None:
    me = Process.current()
    dead = replace(me, born="1")
    rays = tmp_path / "ray"
    gone = session(rays, "session_1", dead)
    kept = [
        session(rays, "session_2", None),  # of somebody who uses Ray otherwise
        session(rays, "session_3", me),
        session(rays, "session_4", replace(dead, space="another kernel")),
        scratch_folder(),
    ]
    (rays / "session_latest").symlink_to(gone)
    scratch = scratch_folder()
    (scratch / "orchestrator-owner.json").write_text(json.dumps(dead.to_dict()))
    assert sorted(remove_leftovers(rays)) == sorted([gone, scratch])
    assert not gone.exists()
    assert not scratch.exists()
    assert all(folder.is_dir() for folder in kept)
    assert remove_leftovers(rays) == []


def test_a_released_folder_stays(tmp_path: Path) -> None:
    folder = session(tmp_path, "session_1", None)
    claim(folder)
    assert (folder / "orchestrator-owner.json").is_file()
    release(folder)
    assert list(folder.iterdir()) == [folder / "logs"]


@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b"\xff"])
def test_an_unreadable_claim_is_no_claim(tmp_path: Path, content: bytes) -> None:
    folder = session(tmp_path, "session_1", None)
    (folder / "orchestrator-owner.json").write_bytes(content)
    assert remove_leftovers(tmp_path) == []
