from pathlib import Path

import numpy as np
import pytest

from trainables import floor
from trainables.dataset import DataSpec, PreparedData, SplitTable, prepare
from trainables.errors import DataError
from trainables.store import Store


def prepared(folder: Path, store: Store, rows: list[tuple[str, str]], **spec: int) -> PreparedData:
    path = folder / "data.jsonl"
    lines = [f'{{"text": "{text}", "label": "{label}"}}' for text, label in rows]
    path.write_text("\n".join(lines), encoding="utf-8")
    return prepare(DataSpec(source="jsonl", path=str(path), **spec), store)


def test_separable_words(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    rows = [(f"{w} thing {n}", w) for w in ("good", "bad", "odd") for n in range(20)]
    data = prepared(tmp_path, store, rows, dev=12, test=12)
    result = floor.tfidf_floor(store, data)
    assert result["accuracy"] == result["f1_macro"] == 1.0
    assert result["rows"] == 36
    assert floor.tfidf_floor(Store(store.root), data) == result
    on_test = floor.tfidf_floor_test(store, data)
    assert on_test["accuracy"] == 1.0
    assert len(store.keys("floor")) == 2


def test_no_test_split(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    data = prepared(tmp_path, store, [(f"{w} {n}", w) for w in "ab" for n in range(9)], dev=4)
    with pytest.raises(DataError, match=r"set data\.test"):
        floor.tfidf_floor_test(store, data)


def test_text_without_spaces_uses_characters() -> None:
    texts = [f"{word}新闻{n}" for n in range(30) for word in ("体育比赛", "股票市场")]
    labels = np.array([0, 1] * 30)
    train = SplitTable(np.arange(60), texts, labels)
    predictions, _, features = floor.fit_predict(train, ["今日股市", "体赛"], 2)
    assert predictions.tolist() == [1, 0]
    assert features > 40


def test_punctuation_only_is_no_empty_vocabulary() -> None:
    train = SplitTable(np.arange(4), ["!", "?", "! !", "? ?"], np.array([0, 1, 0, 1]))
    assert floor.fit_predict(train, ["?"], 2)[0].tolist() == [1]


def test_work_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    texts = [" ".join(f"w{n}" for n in rng.integers(0, 500, 20)) for _ in range(200)]
    labels = rng.permutation(np.repeat(np.arange(100), 2))
    monkeypatch.setattr(floor, "MOST_UPDATES", 1_000_000)
    monkeypatch.setattr(floor, "MOST_COEFFICIENTS", 200_000)
    train = SplitTable(np.arange(200), texts, labels)
    _, rows, features = floor.fit_predict(train, texts[:1], 100)
    assert features == 2000
    assert 50 < rows < 200
