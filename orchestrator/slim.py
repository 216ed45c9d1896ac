"""Keeping Tune's controller small: it keeps every trial it ever ran, and looks at all of them.

Its lists, its snapshot and with them its memory and the time of each step grow with the number of
trials. A fresh Tuner now and then would help, but costs a barrier at which slots stand idle and
workers start anew. So finished trials are taken out of the one that runs: what they were is in
the ledger, and nothing is ever restored from Tune. The names below are private to Ray 2.60, the
only version this project allows; one that is not there is passed over, and the cost grows again.
"""

from __future__ import annotations

import gc
from typing import Any

# Finished trials that stay for a while: the controller may still be stopping their actors.
KEPT = 50

_SETS = ("_stopped_trials", "_failed_trials", "_live_trials", "_trials_to_cache")
_BY_IDENTIFIER = ("_trial_metadata", "_cached_trial_decisions", "_queued_trial_decisions")
# Trials in one of these are still being worked on.
_BUSY = ("_trial_to_actor", "_staged_trials", "_resetting_trials")


def forget_finished(controller: Any, kept: int = KEPT) -> int:
    """Take finished trials out of a ``TuneController`` and return how many.

    Does nothing until there are twice as many as may stay, so that it costs nothing per trial.

    Args:
        controller: Of the run, or the wrapper that schedulers are given.
        kept: How many of the latest trials stay.
    """
    controller = getattr(controller, "_tune_controller", controller)
    trials = controller.get_trials()
    if len(trials) < 2 * kept:
        return 0
    busy = [getattr(controller, name, ()) for name in _BUSY]
    gone = [
        trial
        for trial in trials[:-kept]
        if trial.is_finished() and not any(trial in place for place in busy)
    ]
    identities = {id(trial) for trial in gone}
    # In place: the controller and its callbacks share the list.
    trials[:] = [trial for trial in trials if id(trial) not in identities]
    for trial in gone:
        for name in _SETS:
            getattr(controller, name, set()).discard(trial)
        for name in _BY_IDENTIFIER:
            getattr(controller, name, {}).pop(trial.trial_id, None)
    # What is left of earlier ones: on a heap of a process with torch in it, Python itself looks for
    # unreachable objects about once in a thousand trials.
    gc.collect()
    return len(gone)
