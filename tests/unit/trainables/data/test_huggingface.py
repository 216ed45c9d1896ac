import sys
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar

import pytest

from trainables.data.huggingface import HuggingFace
from trainables.errors import DataError

COMMIT = "0123456789" * 4


class FakeDataset(dict[str, list[Any]]):
    column_names = ("text", "label")
    features: ClassVar = {"label": SimpleNamespace(names=["zebra", "ant"])}


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    seen: list[Any] = []

    def load_dataset(*args: Any, **options: Any) -> FakeDataset:
        seen.append((args, options))
        if options["split"] == "missing":
            raise ValueError('Unknown split "missing"')
        labels = [1, 0] if options["split"] == "train" else [-1, -1]
        return FakeDataset(text=["a", "b"], label=labels)

    module = ModuleType("datasets")
    module.load_dataset = load_dataset  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "datasets", module)
    return seen


def test_class_names_and_their_order_are_taken_from_the_features(calls: list[Any]) -> None:
    source = HuggingFace(path="owner/set/config", revision=COMMIT)
    table = source.read()
    assert table.labels == ["ant", "zebra"]
    assert table.classes == ("zebra", "ant")
    assert calls == [(("owner/set", "config"), {"split": "train", "revision": COMMIT})]
    assert source.digest() == f"owner/set@{COMMIT}/config#train"
    assert source.part("test") == "owner/set/config#test"


def test_hidden_labels_and_unknown_splits(calls: list[Any]) -> None:
    with pytest.raises(DataError, match="2 rows of set#test have no label"):
        HuggingFace(path="set#test", revision=COMMIT).read()
    with pytest.raises(DataError, match=r"cannot read 'set#missing'.*check the id, the split"):
        HuggingFace(path="set#missing", revision=COMMIT).read()


def test_missing_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DataError, match=r"kd-orchestrator\[hub\]"):
        HuggingFace(path="set", revision=COMMIT).read()


def test_hub_not_reachable(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    def dataset_info(self: object, repo_id: str, revision: str | None) -> None:
        raise ConnectionError("no route to host")

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", dataset_info)
    with pytest.raises(DataError, match=r"no route to host.*source: parquet"):
        HuggingFace(path="set").digest()
