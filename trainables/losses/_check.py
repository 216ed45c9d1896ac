"""Checks of constructor arguments; the message holds the rule and the value."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any


def number(
    name: str, value: Any, *, above: float | None = None, least: float | None = None
) -> float:
    """Return ``value`` as a float if it is finite and above (or at least) the bound.

    Raises:
        ValueError: It is not a number, not finite or out of range.
    """
    rule = (
        f"> {above:g}" if above is not None else f">= {least:g}" if least is not None else "finite"
    )
    fits = (
        isinstance(value, (int, float))
        and not isinstance(value, bool)
        and math.isfinite(value)
        and (above is None or value > above)
        and (least is None or value >= least)
    )
    if not fits:
        raise ValueError(f"{name} must be a number {rule}, but got {name}={value!r}")
    return float(value)


def one_of(name: str, value: Any, options: Sequence[str]) -> None:
    """Refuse a value that is not among the options.

    Raises:
        ValueError: ``value`` is none of ``options``.
    """
    if value not in options:
        raise ValueError(f"{name} must be one of {', '.join(options)}, but got {name}={value!r}")
