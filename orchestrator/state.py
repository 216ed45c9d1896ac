"""What a driver writes down about its sweep: ``sweep.json``, from which reports start."""

from __future__ import annotations

from typing import Any

from orchestrator.home import Home
from orchestrator.materials import Materials
from orchestrator.schema import SweepConfig
from trainables.store import disk_errors


class SweepState:
    """The file a report begins with: the config, the studies of each stage, facts about the data.

    Args:
        config: The sweep.
        home: Where its folder is.
    """

    def __init__(self, config: SweepConfig, home: Home) -> None:
        self.config = config
        self.home = home
        self.studies: dict[str, str] = {}
        self.data: dict[str, Any] = {}

    def begin(self, materials: Materials) -> None:
        """Write down the data; studies of an earlier start stay until theirs replace them."""
        data = materials.data
        self.data = {
            "classes": list(data.classes),
            "rows": dict(data.rows),
            "class_counts": {name: list(counts) for name, counts in data.class_counts.items()},
            "digest": data.digest,
            "majority": data.majority,
            "tfidf": dict(materials.floor),
            "notes": list(data.notes),
        }
        self.studies = self._earlier_studies()
        self.write()

    def add_study(self, part: str, study: str) -> None:
        """Write down which study holds the trials of a stage, or a part of one."""
        self.studies[part] = study
        self.write()

    def write(self) -> None:
        """Replace the file.

        Raises:
            StoreError: The disk is full, read-only or not writable.
        """
        metric, direction = next(iter(self.config.search.objectives.items()))
        with disk_errors("sweep.json", self.home.path):
            self.home.write_state(
                self.config.name,
                {
                    "config": self.config.to_dict(),
                    "studies": self.studies,
                    "data": self.data,
                    "objective": [metric, direction],
                },
            )

    def _earlier_studies(self) -> dict[str, str]:
        """Return the studies of an earlier start, so that an early end does not hide them."""
        state = self.home.read_state(self.config.name)
        same = [
            {**config, "search": {**config["search"], "trials": 0}}
            for config in (state.get("config"), self.config.to_dict())
            if config is not None and "search" in config
        ]
        return dict(state["studies"]) if len(same) == 2 and same[0] == same[1] else {}
