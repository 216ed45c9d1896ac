from pathlib import Path

import numpy as np
import pytest
import torch

from trainables.batching import gather
from trainables.dataset import DataSpec, PreparedData, load_split, load_test, prepare
from trainables.encoded import Encoded, ensure_encoded, ensure_encoded_test, flatten
from trainables.errors import DataError
from trainables.store import Artifact, Store
from trainables.tokenization import TextTokenizer, TokenizerSpec, build_tokenizer


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def data(tmp_path: Path, store: Store) -> PreparedData:
    lines = [f"{word} is number {n},{word}" for word in ("good", "bad") for n in range(10)]
    path = tmp_path / "train.csv"
    path.write_text("\n".join(["text,label", *lines]))
    return prepare(DataSpec(path=str(path), dev=4, test=4), store)


@pytest.fixture
def tokenizer(store: Store, data: PreparedData) -> Artifact:
    return build_tokenizer(TokenizerSpec("word"), data.key, store)


def test_split_is_encoded_once(store: Store, data: PreparedData, tokenizer: Artifact) -> None:
    key = ensure_encoded(store, data.key, "train", tokenizer, 16)
    stamp = store.path("encoded", key).stat().st_mtime_ns
    assert ensure_encoded(Store(store.root), data.key, "train", tokenizer, 16) == key
    assert store.path("encoded", key).stat().st_mtime_ns == stamp
    encoded = Encoded.open(store.read("encoded", key).path)
    table = load_split(store, data.key, "train")
    assert encoded.tokens.dtype == torch.int32
    assert encoded.ids.tolist() == table.ids.tolist()
    assert encoded.labels.tolist() == table.labels.tolist()
    assert encoded.lengths.tolist() == [4] * 12
    text = TextTokenizer.open(tokenizer.path)
    input_ids, mask = gather(encoded, torch.arange(12))
    assert input_ids.tolist() == text.encode(table.texts)
    assert mask.all()


def test_settings_have_their_own_key(store: Store, data: PreparedData, tokenizer: Artifact) -> None:
    keys = {
        ensure_encoded(store, data.key, "train", tokenizer, 16),
        ensure_encoded(store, data.key, "train", tokenizer, 2),
        ensure_encoded(store, data.key, "dev", tokenizer, 16),
        ensure_encoded(store, data.key, "train", tokenizer, 16, prefix="is "),
    }
    assert len(keys) == 4
    meta = store.meta("encoded", ensure_encoded(store, data.key, "train", tokenizer, 2)) or {}
    assert (meta["longest"], meta["at_max_length"], meta["tokens"]) == (2, 12, 24)


def test_prefix_is_put_before_each_text(
    store: Store, data: PreparedData, tokenizer: Artifact
) -> None:
    text = TextTokenizer.open(tokenizer.path)
    tokens, offsets = flatten(["good", "bad"], text, 8, prefix="number ")
    assert offsets.tolist() == [0, 2, 4]
    assert tokens.tolist() == [t for row in text.encode(["number good", "number bad"]) for t in row]


def test_empty_splits_and_texts(store: Store, data: PreparedData, tokenizer: Artifact) -> None:
    key = ensure_encoded(store, data.key, "transfer", tokenizer, 16)
    encoded = Encoded.open(store.read("encoded", key).path)
    assert (len(encoded), encoded.max_length) == (0, 0)
    tokens, offsets = flatten(["\u200b", "good"], TextTokenizer.open(tokenizer.path), 8)
    assert offsets.tolist() == [0, 1, 2]
    assert tokens[0] == 1


def test_many_texts_cross_the_chunks(tokenizer: Artifact) -> None:
    text = TextTokenizer.open(tokenizer.path)
    tokens, offsets = flatten(["good", "bad is"] * 3000, text, 8)
    assert len(offsets) == 6001
    assert (np.diff(offsets) == np.array([1, 2] * 3000)).all()
    assert len(tokens) == offsets[-1] == 9000


def test_test_split_needs_its_own_key(
    store: Store, data: PreparedData, tokenizer: Artifact
) -> None:
    key = ensure_encoded_test(store, data.test_key or "", tokenizer, 16)
    encoded = Encoded.open(store.read("encoded", key).path)
    assert encoded.ids.tolist() == load_test(store, data.test_key or "").ids.tolist()
    with pytest.raises(DataError, match="not 'test'"):
        ensure_encoded(store, data.key, "test", tokenizer, 16)


@pytest.mark.parametrize(("length", "specials"), [(0, False), (2, True)])
def test_lengths_without_room(
    store: Store, data: PreparedData, tokenizer: Artifact, length: int, specials: bool
) -> None:
    with pytest.raises(DataError, match="max_length must be at least"):
        ensure_encoded(store, data.key, "dev", tokenizer, length, specials=specials)
