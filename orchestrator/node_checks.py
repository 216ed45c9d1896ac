"""What a node must have in common with the driver, proved on the node itself.

A node that mounts another folder as the store, or runs another commit, spoils trials long after it
has taken them. So each node reads what the driver has just written to the store and signs it, and
says which release and which checkpoints it has, before it gets its first trial.
"""

from __future__ import annotations

import errno
import os
import shutil
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.deployment.release import Release, this_release
from orchestrator.errors import PreflightError, Problem
from trainables.checkpoints import checkpoint_digest
from trainables.errors import StoreError
from trainables.remote import Remote
from trainables.store import disk_errors, is_url

if TYPE_CHECKING:
    from orchestrator.cluster import Node

NONCE = "nonce"

Ask = Callable[..., Mapping[str, Any]]
"""Runs a function once on each node: ``(nodes, function, *arguments)`` to answers by node id. An
exception is the answer of a node on which the function failed; a node that is lost has none."""


def check_nodes(
    nodes: Sequence[Node], store: Path | str, checkpoints: Mapping[str, str], ask: Ask
) -> None:
    """Check that trials can run on every node as they would run here.

    Args:
        nodes: The nodes to ask.
        store: The root of the driver's store, or its URL.
        checkpoints: Folders that trials will read, each with the digest it has here.
        ask: Runs a function on each of the nodes.

    Raises:
        PreflightError: Some node differs; lists every difference with the node it is on.
        StoreError: The driver cannot write to its own store.
    """
    folder = f"{store}/tmp/nodes-{uuid.uuid4().hex}"
    nonce = uuid.uuid4().hex
    try:
        with disk_errors("a file for the nodes to read", Path(store)):
            _write(folder, NONCE, nonce)
        answers = ask(nodes, look, folder, list(checkpoints))
        problems = [
            problem
            for node in nodes
            if node.id in answers
            for problem in _problems(node, answers[node.id], folder, nonce, checkpoints)
        ]
    finally:
        _remove(folder)
    if problems:
        raise PreflightError(problems)


def look(folder: str, checkpoints: Sequence[str]) -> dict[str, Any]:
    """Tell what this node has; runs on the node.

    Args:
        folder: Folder or URL where the driver has written its nonce; the answer goes beside it.
        checkpoints: Folders to read.

    Returns:
        ``release``, ``store`` (the name of the written file, or ``error``) and, for each
        checkpoint, its ``digest`` or ``error``.
    """
    return {
        "release": asdict(this_release()),
        "store": _sign(folder),
        "checkpoints": {name: _digest(Path(name)) for name in checkpoints},
    }


def _sign(folder: str) -> dict[str, str]:
    name = uuid.uuid4().hex
    try:
        _write(folder, name, _read(folder, NONCE))
    except (OSError, StoreError) as error:
        return {"error": getattr(error, "strerror", None) or str(error)}
    return {"signed": name}


def _write(folder: str, name: str, text: str) -> None:
    if is_url(folder):
        Remote(folder).write(name, text.encode("ascii"))
        return
    Path(folder).mkdir(parents=True, exist_ok=name != NONCE)
    (Path(folder) / name).write_text(text, encoding="ascii")


def _read(folder: str, name: str) -> str:
    if not is_url(folder):
        return (Path(folder) / name).read_text(encoding="ascii")
    content = Remote(folder).read(name)
    if content is None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
    return content.decode("ascii")


def _remove(folder: str) -> None:
    if is_url(folder):
        place, _, name = folder.rpartition("/")
        Remote(place).remove_all(name)
    else:
        shutil.rmtree(folder, ignore_errors=True)


def _digest(folder: Path) -> dict[str, str]:
    try:
        return {"digest": checkpoint_digest(folder)}
    except OSError as error:
        return {"error": error.strerror or str(error)}


def _problems(
    node: Node, answer: Any, folder: str, nonce: str, checkpoints: Mapping[str, str]
) -> list[Problem]:
    """Compare what one node has answered with what the driver has."""
    where = f"node {node.name}"
    if isinstance(answer, Exception):
        text = f"could not be asked what it has ({_last_line(answer)})"
        return [Problem(where, text, "install this release of the project there, or take it out")]
    problems = []
    if reason := _not_shared(answer["store"], folder, nonce):
        text = f"does not share the store {folder.rpartition('/tmp/')[0]} ({reason})"
        cure = "mount the driver's folder there at the same path"
        if is_url(folder):
            cure = "give it the same end point, and credentials that may read and write there"
        problems.append(Problem(where, text, cure))
    own, release = this_release(), Release(**answer["release"])
    if release != own:
        text = f"runs release {release}, but this driver runs {own}"
        cure = "start all nodes from one image, or install the same commit everywhere"
        problems.append(Problem(where, text, cure))
    for name, digest in checkpoints.items():
        found = answer["checkpoints"][name]
        if found.get("digest") != digest:
            reason = found.get("error", "its files differ from those of this driver")
            text = f"cannot use checkpoint {name} ({reason})"
            cure = "copy it there, or put it where all nodes see the same files"
            problems.append(Problem(where, text, cure))
    return problems


def _not_shared(answer: Mapping[str, str], folder: str, nonce: str) -> str:
    """Return why a node's store is not this one; empty if it is."""
    if "error" in answer:
        return answer["error"]
    try:
        signed = _read(folder, answer["signed"])
    except (OSError, StoreError):
        return "what it writes does not arrive here"
    return "" if signed == nonce else "what it reads is not what was written here"


def _last_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
