"""Seeds: every random stream of a trial derives from one number."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

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
