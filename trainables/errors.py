"""Errors that a user of the trainables can mend.

::

    TrainableError
    ├── ComponentError        unknown component name, or parameters it does not take
    ├── DataError             the data set, a tokenizer or a checkpoint is unusable as given
    ├── ArtifactMissing       no manifest under that kind and key
    │   └── ArtifactCorrupt   there was one, but its bytes do not match; it has been set aside
    ├── StoreError            the store cannot be written (full, read-only, not a directory)
    └── TrialFailed           an expected, deterministic failure of one trial: do not retry
        └── NonFiniteLoss     the loss became NaN or infinite
"""

from __future__ import annotations


class TrainableError(Exception):
    """Base of every error whose message tells the user what, where and how to mend it."""


class ComponentError(TrainableError):
    """A component name is unknown, or its parameters are not what it accepts."""


class DataError(TrainableError):
    """The data, a tokenizer or a checkpoint cannot be used as configured."""


class ArtifactMissing(TrainableError):
    """The store holds no complete artifact under this kind and key."""


class ArtifactCorrupt(ArtifactMissing):
    """An artifact failed verification; it has been set aside and must be made again."""


class StoreError(TrainableError):
    """The store cannot be written: full, read-only or not a directory."""


class TrialFailed(TrainableError):
    """A deterministic failure of one trial; running it again would fail the same way."""


class NonFiniteLoss(TrialFailed):
    """The training loss became NaN or infinite."""
