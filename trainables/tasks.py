"""The kinds of trials there are, and how one is run from plain JSON values."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing
from typing import Any, Protocol

from trainables import confirm, ensemble, joint, outputs, student, teacher
from trainables.checkpoint import Checkpoint
from trainables.errors import ArtifactMissing
from trainables.lease import Lease
from trainables.store import Artifact, Store

WAIT_SECONDS = 2.0  # between two looks at an artifact that another process makes


class Spec(Protocol):
    """What every spec has: a key that names the artifact it makes."""

    @property
    def key(self) -> str:
        """The key of the artifact."""


_Run = Callable[[Any, Store, Checkpoint], Iterator[dict[str, Any]]]


def _outputs(
    spec: outputs.OutputsSpec, store: Store, checkpoint: Checkpoint
) -> Iterator[dict[str, Any]]:
    """Outputs are one pass; there is nothing to continue from."""
    del checkpoint
    return outputs.run(spec, store)


def _ensemble(
    spec: ensemble.EnsembleSpec, store: Store, checkpoint: Checkpoint
) -> Iterator[dict[str, Any]]:
    """Ensembles combine what is stored; there is nothing to continue from."""
    del checkpoint
    return ensemble.run(spec, store)


# Artifact kind -> how its spec is read and run. A new trainable is one line here.
TASKS: Mapping[str, tuple[Callable[[Mapping[str, Any]], Spec], _Run]] = {
    "teacher": (teacher.TeacherSpec.from_dict, teacher.run),
    "outputs": (outputs.OutputsSpec.from_dict, _outputs),
    "student": (student.StudentSpec.from_dict, student.run),
    "joint": (joint.JointSpec.from_dict, joint.run),
    "confirm": (confirm.ConfirmSpec.from_dict, confirm.run),
    "ensemble": (ensemble.EnsembleSpec.from_dict, _ensemble),
}


def run_task(
    task: str,
    values: Mapping[str, Any],
    store: Store,
    *,
    pause: Callable[[float], object] = time.sleep,
) -> Generator[dict[str, Any], None, None]:
    """Run one trial, or answer it from the store if its artifact is already there and whole.

    Args:
        task: One of ``TASKS``.
        values: The spec as JSON values.
        store: The content store.
        pause: Waits some seconds.

    Yields:
        One report per epoch; the last has ``finished`` True and a ``summary``. A report from
        the store has ``cached`` True. While another process makes the same artifact: reports of
        epoch 0 with ``status`` ``waiting`` and its ``holder``.
    """
    read, run = TASKS[task]
    spec = read(values)
    checkpoint = Checkpoint(store.root, spec.key, remote=store.remote)
    with closing(Lease(store.root, task, spec.key, remote=store.remote)) as lease:
        while (artifact := _find(store, task, spec.key)) is None and not lease.held:
            holder = lease.take()
            if holder is not None:
                yield {"epoch": 0, "finished": False, "status": "waiting", "holder": holder}
                pause(WAIT_SECONDS)
        if artifact is None:
            for report in run(spec, store, checkpoint):
                if report.get("finished"):
                    lease.close()  # the artifact is there; this generator may rest for long
                yield report
            return
    # Left over if the process died between storing the artifact and clearing up.
    checkpoint.clear()
    history = artifact.meta.get("history") or [{"epoch": 1}]
    yield {
        **history[-1],
        "finished": True,
        "cached": True,
        "history": history[:-1],
        "summary": artifact.meta["metrics"],
    }


def _find(store: Store, task: str, key: str) -> Artifact | None:
    try:
        return store.read(task, key)
    except ArtifactMissing:
        return None
