"""What a sweep says about its data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from trainables.data._table import did_you_mean
from trainables.errors import DataError

DEFAULT_DEV = 0.1
REST = "rest"


@dataclass(frozen=True)
class DataSpec:
    """Where the labelled text comes from and how it is divided. JSON values only.

    Attributes:
        source: A component of kind ``data``, or ``component:path`` such as
            ``pypi:vaderSentiment==3.3.2``.
        path: File, hub id or package; relative paths have been resolved by the caller.
        text: The column with the text.
        label: The column with the label.
        dev: A share of the training rows, a number of them, or the path of another part; None
            takes a tenth.
        test: As ``dev``; None means that there is no test split.
        transfer: Path of unlabelled rows, or ``"rest"``: the training rows beyond ``labelled``.
        labelled: Keep only so many labelled training rows, stratified.
        max_length: Tokens kept of each text; does not change the splits.
        seed: Which rows go into which split.
        dedupe: Remove repeated texts from train and transfer (never from dev or test).
        superclass: The column with the superclass, or a mapping from class to superclass.
        group: The column whose rows stay in one split, such as the author; dev, test and folds
            are then made of whole groups.
        sha256: Expected checksum of a package that is not pinned in the project.
        revision: Revision of a hub data set.
    """

    source: str = "csv"
    path: str | None = None
    text: str = "text"
    label: str = "label"
    dev: float | int | str | None = DEFAULT_DEV
    test: float | int | str | None = None
    transfer: str | None = None
    labelled: int | None = None
    max_length: int = 64
    seed: int = 0
    dedupe: bool = True
    superclass: str | Mapping[str, str] | None = None
    sha256: str | None = None
    revision: str | None = None
    group: str | None = None

    def __post_init__(self) -> None:
        problems = [
            *_part_problems("dev", self.dev),
            *_part_problems("test", self.test),
            *_number_problems("labelled", self.labelled),
            *_number_problems("max_length", self.max_length),
        ]
        problems += [
            f"data.{name} must be a name, but got {value!r}"
            for name, value in (("source", self.source), ("text", self.text), ("label", self.label))
            if not isinstance(value, str) or not value
        ]
        if self.group is not None and (
            not isinstance(self.group, str) or self.group in ("", self.text, self.label)
        ):
            problems.append(
                f"data.group must be a column besides text and label, but got {self.group!r}"
            )
        if isinstance(self.seed, bool) or not isinstance(self.seed, int):
            problems.append(f"data.seed must be a whole number, but got {self.seed!r}")
        if self.transfer == REST and self.labelled is None:
            problems.append(
                "data.transfer is 'rest' but data.labelled is not given; say how many training "
                "rows keep their label, the others become transfer rows"
            )
        if problems:
            raise DataError("\n".join(problems))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> DataSpec:
        """Make a spec of plain JSON values.

        Raises:
            DataError: Unknown fields or impossible values; lists all.
        """
        known = [field.name for field in fields(cls)]
        unknown = [name for name in values if name not in known]
        if unknown:
            raise DataError(
                "\n".join(
                    f"data has no field {name!r}{did_you_mean(name, known)}; "
                    f"it has: {', '.join(known)}"
                    for name in unknown
                )
            )
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain JSON values."""
        superclass = self.superclass
        plain = dict(superclass) if isinstance(superclass, Mapping) else superclass
        return {**asdict(self), "superclass": plain}

    @property
    def dev_part(self) -> float | int | str:
        """``dev`` with its default filled in."""
        return DEFAULT_DEV if self.dev is None else self.dev


def _part_problems(name: str, value: float | int | str | None) -> list[str]:
    if value is None or (isinstance(value, str) and value):
        return []
    if isinstance(value, float) and 0.0 < value < 1.0:
        return []
    if isinstance(value, int) and not isinstance(value, bool) and value >= 1:
        return []
    return [
        f"data.{name} must be a share between 0 and 1, a number of rows or a path, "
        f"but got {value!r}"
    ]


def _number_problems(name: str, value: int | None) -> list[str]:
    if value is None or (isinstance(value, int) and not isinstance(value, bool) and value >= 1):
        return []
    return [f"data.{name} must be a whole number of at least 1, but got {value!r}"]
