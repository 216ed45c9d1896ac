"""Data sets of the Hugging Face hub."""

from __future__ import annotations

import re
from typing import Any

from trainables.data import _columns
from trainables.data._table import Table, make_table, scalar_text
from trainables.errors import DataError

_COMMIT = re.compile(r"[0-9a-f]{40}\Z")
_INSTALL = "install the extra: pip install 'kd-orchestrator[hub]'"


class HuggingFace:
    """Data set of the Hugging Face hub, as ``id`` or ``id/config`` with ``#split``.

    ``ag_news`` reads its ``train`` split, ``ag_news#test`` its test split, and
    ``nyu-mll/glue/sst2#validation`` one configuration of a data set with several. As
    ``data.dev`` or ``data.test`` the name of a split is enough. Code in data set repositories is
    never run.

    Args:
        path: The data set, its configuration and split.
        text: The column with the text.
        label: The column with the label; None reads unlabelled rows.
        superclass: The column with the superclass of the row, if there is one.
        group: The column whose rows stay in one split, if there is one.
        revision: Branch, tag or commit; without a commit the hub is asked which one it is.
    """

    def __init__(
        self,
        *,
        path: str,
        text: str = "text",
        label: str | None = "label",
        superclass: str | None = None,
        group: str | None = None,
        revision: str | None = None,
    ) -> None:
        self.path, self.text, self.label = path, text, label
        self.superclass, self.group, self.revision = superclass, group, revision
        self._base, _, split = path.partition("#")
        self._split = split or "train"
        owner_and_name = self._base.split("/")
        self._id = "/".join(owner_and_name[:2])
        self._config = "/".join(owner_and_name[2:]) or None

    def read(self) -> Table:
        """Read all rows of the split; see ``DataSource.read``."""
        data = self._load()
        found = _columns.locate(
            self.path, data.column_names, self.text, self.label, self.superclass, self.group
        )
        names = {role: data.column_names[position] for role, position in found.items()}
        declared = self._declared(data, names.get("label"))
        columns = {role: list(data[name]) for role, name in names.items()}
        labels = [self._name(value, declared) for value in columns.get("label", [])]
        groups, blocks = (
            [scalar_text(value) for value in columns[role]] if role in columns else None
            for role in ("superclass", "group")
        )
        return make_table(
            self.path,
            [scalar_text(value) for value in columns["text"]],
            labels if "label" in columns else None,
            groups,
            classes=tuple(declared) if declared is not None else None,
            blocks=blocks,
        )

    def digest(self) -> str:
        """Return the data set, its commit, configuration and split."""
        return f"{self._id}@{self._commit()}/{self._config or ''}#{self._split}"

    def part(self, name: str) -> str:
        """Another part is another split of the same data set."""
        return f"{self._base}#{name}"

    def _commit(self) -> str:
        if self.revision is not None and _COMMIT.match(self.revision):
            return self.revision
        from huggingface_hub import HfApi
        from huggingface_hub.errors import HFValidationError, HTTPError  # type: ignore[attr-defined]

        try:
            commit = HfApi().dataset_info(self._id, revision=self.revision).sha
        except (HTTPError, HFValidationError, OSError) as error:
            raise self._unreachable(error) from error
        if commit is None:
            raise DataError(f"the hub tells no commit of {self._id!r}; set data.revision to one")
        return commit

    def _load(self) -> Any:
        try:
            import datasets
        except ImportError as error:
            raise DataError(f"data source huggingface needs 'datasets'; {_INSTALL}") from error
        from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]

        try:
            return datasets.load_dataset(
                self._id, self._config, split=self._split, revision=self._commit()
            )
        except (HTTPError, OSError, ValueError) as error:
            raise self._unreachable(error) from error

    def _unreachable(self, error: Exception) -> DataError:
        reason = str(error).strip().partition("\n")[0]
        return DataError(
            f"cannot read {self.path!r} from the Hugging Face hub: {reason}; check the id, the "
            "split and the network, or download it and use source: parquet"
        )

    @staticmethod
    def _declared(data: Any, label: str | None) -> list[str] | None:
        feature = data.features.get(label) if label is not None else None
        names = getattr(feature, "names", None)
        return list(names) if names else None

    @staticmethod
    def _name(value: Any, declared: list[str] | None) -> str | None:
        if declared is None or not isinstance(value, int):
            return scalar_text(value)
        # Hidden test labels are published as -1.
        return declared[value] if 0 <= value < len(declared) else None


COMPONENT = HuggingFace
