"""Seeds: every random stream of a trial derives from one number."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


def derive_seed(seed: int, *purpose: str) -> int:
    """Return an independent 63-bit seed for ``purpose``, e.g. ``derive_seed(0, "batches")``.

    Hashing keeps the streams apart: shuffling must not change when a policy draws one number
    more, and seeds 0 and 1 must not give shifted copies of each other.
    """
    digest = hashlib.sha256("\0".join([str(seed), *purpose]).encode("utf-8")).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def seed_torch(seed: int) -> None:
    """Seed torch's global streams, which initialisation and dropout draw from."""
    import torch  # the driver derives seeds without ever loading torch

    torch.manual_seed(derive_seed(seed, "torch"))


def batch_generator(seed: int) -> torch.Generator:
    """Return the generator that orders the batches of a trial."""
    import torch

    generator = torch.Generator()
    generator.manual_seed(derive_seed(seed, "batches"))
    return generator


def random_state() -> dict[str, Any]:
    """Return the state of torch's global streams: ``cpu`` and, with a GPU, ``cuda``."""
    import torch

    cuda = torch.cuda.get_rng_state() if torch.cuda.is_available() else None
    return {"cpu": torch.get_rng_state(), "cuda": cuda}


def set_random_state(state: dict[str, Any]) -> None:
    """Continue torch's global streams from what ``random_state`` returned."""
    import torch

    torch.set_rng_state(state["cpu"])
    if state["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
