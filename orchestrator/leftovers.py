"""What drivers that were killed have left in the folder for temporary files, and its removal."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path

from trainables.process import Process

PREFIX = "orchestrator-tune-"
_OWNER = "orchestrator-owner.json"
# Ray names the folders of its sessions like this, below the folder given to it or its own default.
_SESSIONS = "session_*"


def scratch_folder() -> Path:
    """Make a folder for files that nobody needs after this process."""
    folder = Path(tempfile.mkdtemp(prefix=PREFIX))
    claim(folder)
    return folder


def claim(folder: Path) -> None:
    """Write down that a folder is of no use once this process is gone."""
    text = json.dumps(Process.current().to_dict())
    (folder / _OWNER).write_text(text, encoding="utf-8")


def release(folder: Path) -> None:
    """Let a folder stay for people to look into."""
    (folder / _OWNER).unlink(missing_ok=True)


def remove_leftovers(sessions: Path) -> list[Path]:
    """Remove this user's folders whose owners are certainly dead; returns them.

    Args:
        sessions: Where Ray keeps the folders of its sessions.
    """
    places = [*Path(tempfile.gettempdir()).glob(f"{PREFIX}*"), *sessions.glob(_SESSIONS)]
    removed = []
    for folder in places:
        if folder.is_symlink() or not _is_left(folder):
            continue
        shutil.rmtree(folder, ignore_errors=True)
        removed.append(folder)
    return removed


def _is_left(folder: Path) -> bool:
    try:
        owner = folder / _OWNER
        if owner.stat().st_uid != os.getuid():
            return False
        return Process.from_dict(json.loads(owner.read_bytes())).is_dead()
    except (OSError, ValueError, KeyError, TypeError):
        return False
