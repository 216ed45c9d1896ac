"""A picture of the HTML report: plotly traces and layout as plain data.

Colours are written ``theme:accent`` and the like; the page replaces them by those of the reader's
dark or light scheme, and again when it changes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from orchestrator.report import naming

ACCENT, SECOND, THIRD, MUTED = "theme:accent", "theme:second", "theme:third", "theme:muted"
GOOD, BAD, INK, CARD = "theme:good", "theme:bad", "theme:ink", "theme:card"
SEQUENTIAL, DIVERGING = "theme:sequential", "theme:diverging"


@dataclass(frozen=True)
class Figure:
    """One plot with its title and a caption that says how to read it.

    Attributes:
        name: Identifies it in the page, e.g. ``pareto``.
        title: Heading.
        caption: One sentence below the heading.
        data: Plotly traces.
        layout: Plotly layout; the page adds fonts, colours and margins.
        height: Pixels.
        wide: Takes the whole width of the page.
        scroll: Least width in pixels; a narrower page scrolls sideways inside the card.
    """

    name: str
    title: str
    caption: str
    data: Sequence[Mapping[str, Any]]
    layout: Mapping[str, Any] = field(default_factory=dict)
    height: int = 340
    wide: bool = False
    scroll: int = 0


def axis(title: str, **more: Any) -> dict[str, Any]:
    """Return an axis with a title."""
    return {"title": {"text": title, "standoff": 8}, "automargin": True, **more}


def magnitude_axis(name: str, values: Sequence[float]) -> dict[str, Any]:
    """Return a logarithmic axis of sizes or times, all > 0, with ticks as people say them."""
    low, high = min(values) / 1.25, max(values) * 1.25
    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks = [step * 10.0**exponent for exponent in exponents for step in (1, 2, 5)]
    inside = [tick for tick in ticks if low <= tick <= high] or [max(values)]
    write = {"parameters": naming.count, "model_bytes": naming.size}.get(name, "{:g}".format)
    return axis(
        naming.describe_metric(name),
        type="log",
        tickvals=inside,
        ticktext=[write(tick) for tick in inside],
        range=[math.log10(low), math.log10(high)],
    )


def percent_values(values: Sequence[float | None]) -> list[float | None]:
    """Return shares in per cent, rounded to what can be seen."""
    return [None if value is None else round(100 * value, 3) for value in values]
