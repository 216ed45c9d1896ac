"""RCO: the student follows the route that its teachers took."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any, Literal

from trainables.losses._check import number, one_of
from trainables.protocols import Schedule


class RCO(Schedule):
    """Snapshots of the teachers from early to fully trained, one after the other.

    The early snapshots are easier to imitate. The epochs are divided evenly among the anchors,
    except that the last keeps at least ``last_share`` of them. At each of those boundaries
    ``"equal"`` goes on to the next anchor; ``"greedy"`` skips to the farthest one whose divergence
    from the student is at most ``threshold`` times that of the present anchor.

    Args:
        anchors: Fractions of teacher training, ascending, the last 1.
        search: ``"equal"`` or ``"greedy"``.
        threshold: Largest relative divergence that ``"greedy"`` accepts; at least 1.
        last_share: Least share of the epochs for the last anchor; 0 to 1.

    Source: our reading of Jin et al. 2019, ICCV, arXiv 1904.09149; threshold and last_share are
        our choices.
    """

    def __init__(
        self,
        *,
        anchors: Sequence[float] = (0.1, 0.25, 0.5, 1.0),
        search: Literal["equal", "greedy"] = "equal",
        threshold: float = 1.5,
        last_share: float = 0.4,
    ) -> None:
        self.anchors = _checked(anchors)
        one_of("search", search, ("equal", "greedy"))
        self.search = search
        self.threshold = number("threshold", threshold, least=1)
        self.last_share = number("last_share", last_share, least=0)
        if last_share > 1:
            raise ValueError(f"last_share must be <= 1, but got {last_share=}")
        self._active = 0

    def __call__(self, epoch: int, epochs: int) -> int:
        """Return the index of the anchor active in epoch ``epoch`` (from 0) of ``epochs``."""
        position = self._position(epoch, epochs)
        last = len(self.anchors) - 1
        return position if self.search == "equal" or position == last else self._active

    def due(self, epoch: int, epochs: int) -> bool:
        """Say whether the greedy search chooses anew before this epoch."""
        if self.search == "equal" or epoch == 0:
            return False
        position = self._position(epoch, epochs)
        changed = position != self._position(epoch - 1, epochs)
        return changed and position < len(self.anchors) - 1

    def advance(self, divergences: Sequence[float]) -> int:
        """Go on to the farthest anchor near enough, or at least to the next.

        Args:
            divergences: Mean KL on dev of the present student to every anchor.

        Raises:
            ValueError: There is not one divergence per anchor.
        """
        last = len(self.anchors) - 1
        if len(divergences) != len(self.anchors):
            raise ValueError(
                f"divergences must hold one value for each of {len(self.anchors)} anchors, "
                f"but got {len(divergences)}"
            )
        limit = self.threshold * divergences[self._active]
        near = [j for j in range(self._active + 1, last + 1) if divergences[j] <= limit]
        self._active = max(near, default=min(self._active + 1, last))
        return self._active

    def state_dict(self) -> dict[str, Any]:
        """Return the anchor that the greedy search has reached."""
        return {"active": self._active}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from the anchor of the checkpoint."""
        self._active = int(state["active"])

    def _position(self, epoch: int, epochs: int) -> int:
        """Return the anchor by epoch alone."""
        count = len(self.anchors)
        even = math.ceil((count - 1) * epochs / count)
        # The tolerance keeps 0.4 * 15 from being six epochs and a bit.
        share = epochs - max(1, math.ceil(self.last_share * epochs - 1e-9))
        if epoch >= min(even, share):
            return count - 1
        if even <= share:
            return epoch * count // epochs
        return epoch * (count - 1) // share


def _checked(anchors: Sequence[float]) -> tuple[float, ...]:
    values = tuple(number("anchors", anchor, above=0) for anchor in anchors)
    ascending = all(low < high for low, high in itertools.pairwise(values))
    if not values or not ascending or values[-1] != 1.0:
        raise ValueError(f"anchors must ascend from above 0 to 1.0, but got {anchors=}")
    return values


COMPONENT = RCO
